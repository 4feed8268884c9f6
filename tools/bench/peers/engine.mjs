// @ts-check
/**
 * An engine in a process of its own, spoken to in lines of JSON: loads a model once, then runs a prompt and decodes
 * some tokens as often as it is asked to. Between two requests it computes nothing, so that engines can take turns.
 *
 * @typedef {{ prompt: number[], decode: number }} Request
 * @typedef {{ prefillMs: number, tokenMs: number[], ids: number[] }} Round  `ids`: the tokens decoded, greedily
 * @typedef {{ run(request: Request): Promise<Round> }} Engine
 */
import { createInterface } from 'node:readline';

/** @param {() => Promise<Engine>} load */
export async function serveEngine(load) {
  const start = performance.now();
  try {
    const engine = await load();
    answer({ loadMs: performance.now() - start });
    for await (const line of createInterface({ input: process.stdin })) {
      const round = await engine.run(JSON.parse(line));
      answer({ ...round, rss: process.memoryUsage().rss });
    }
    process.exit(0);
  } catch (error) {
    answer({ error: error instanceof Error ? error.message : String(error) });
    process.exit(1);
  }
}

/** @param {object} document */
function answer(document) {
  process.stdout.write(`\n@ ${JSON.stringify(document)}\n`);
}
