// @ts-check
/**
 * A process of its own that asks for `/health` again and again, and for nothing else: at its times whether the answer
 * before has come or not, so that a server that does not answer for long is not asked less often for it. How late its own
 * timer fires says how long processes wait for a processor on this machine.
 *
 *   node health.mjs <url>      (started by the soak; tells its times on the message `end`)
 */
import { Agent, get } from 'node:http';

const EVERY_MS = 20;
const url = `${process.argv[2]}/health`;
const agent = new Agent({ keepAlive: true, maxSockets: 64 });

/** @type {{ ms: number, status: number }[]} */
const answers = [];
/** @type {number[]} */
const late = [];
let under = 0;
let due = performance.now() + EVERY_MS;

/** A connection that the server closes just when it is used again says nothing of the server. */
const ask = (/** @type {(status: number) => void} */ answered) => {
  const request = get(url, { agent }, (response) => {
    response.resume();
    response.on('end', () => answered(response.statusCode ?? 0));
  });
  request.on('error', () => (request.reusedSocket ? ask(answered) : answered(0)));
};

const timer = setInterval(() => {
  const asked = performance.now();
  late.push(Math.max(0, asked - due));
  due = asked + EVERY_MS;
  under += 1;
  ask((status) => {
    under -= 1;
    answers.push({ ms: performance.now() - asked, status });
  });
}, EVERY_MS);

process.on('message', () => {
  clearInterval(timer);
  const waited = setInterval(() => {
    if (under > 0) return;
    clearInterval(waited);
    process.send?.({ answers, late }, () => process.exit(0));
  }, 10);
});
