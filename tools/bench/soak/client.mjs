// @ts-check

/**
 * What came of a request.
 *
 * @typedef {object} Outcome
 * @property {'answered' | 'dropped' | 'failed'} what
 * @property {string} text
 * @property {string} [finish]
 * @property {string} [why]
 * @property {number} refusals answers of 429 before this one
 * @property {number} waitedMs between them
 * @property {Timings} [timings]
 *
 * @typedef {{ prompt_n: number, predicted_n: number, cache_n: number }} Timings
 * @typedef {{ text?: string, message?: { content: string | null }, delta?: { content?: string }, finish_reason: string | null }} Choice
 * @typedef {{ choices: Choice[], timings?: Timings, error?: { message: string } }} Answer
 */

/**
 * Asks until there is an answer, waiting as long as `Retry-After` says; or goes away when its time has come.
 *
 * @param {string} url
 * @param {import('./requests.mjs').SoakRequest} request
 * @returns {Promise<Outcome>}
 */
export async function ask(url, { path, body, stream, dropAfterMs }) {
  const client = new AbortController();
  let refusals = 0;
  let waitedMs = 0;
  /** @param {'answered' | 'dropped' | 'failed'} what @param {Partial<Outcome>} [more] @returns {Outcome} */
  const outcome = (what, more = {}) => ({ what, text: '', refusals, waitedMs, ...more });
  /** @type {NodeJS.Timeout | undefined} */
  let timer;
  try {
    for (;;) {
      // One who goes away does so in the midst of the answer, or of the wait for it.
      if (dropAfterMs !== undefined) timer = setTimeout(() => client.abort(), dropAfterMs);
      const response = await fetch(url + path, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(body),
        signal: client.signal,
      });
      if (response.status === 429) {
        clearTimeout(timer);
        const seconds = Number(response.headers.get('retry-after'));
        await response.text();
        if (!(seconds >= 1)) return outcome('failed', { why: '429 without Retry-After' });
        refusals += 1;
        waitedMs += 1000 * seconds;
        await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
        continue;
      }
      const text = await response.text();
      if (response.status !== 200) return outcome('failed', { why: `${response.status}: ${text}` });
      return { ...outcome('answered'), ...(stream ? streamed(text) : whole(JSON.parse(text))) };
    }
  } catch (cause) {
    if (client.signal.aborted) return outcome('dropped');
    return outcome('failed', { why: String(cause) });
  } finally {
    clearTimeout(timer);
  }
}

/** @param {Answer} answer @returns {Partial<Outcome>} */
function whole({ choices: [choice], timings }) {
  if (choice === undefined || timings === undefined) return { what: 'failed', why: 'an answer is missing' };
  return { text: choice.text ?? choice.message?.content ?? '', finish: choice.finish_reason ?? '', timings };
}

/** @param {string} text @returns {Partial<Outcome>} */
function streamed(text) {
  const events = text.split('\n\n').filter((event) => event !== '' && !event.startsWith(':'));
  if (events.pop() !== 'data: [DONE]')
    return { what: 'failed', why: `a stream broke off: ${text.slice(-200)}` };
  let said = '';
  /** @type {string | undefined} */
  let finish;
  /** @type {Timings | undefined} */
  let timings;
  for (const event of events) {
    const chunk = /** @type {Answer} */ (JSON.parse(event.slice('data: '.length)));
    if (chunk.error !== undefined) return { what: 'failed', why: chunk.error.message };
    const [choice] = chunk.choices;
    said += choice?.text ?? choice?.delta?.content ?? '';
    finish = choice?.finish_reason ?? finish;
    timings = chunk.timings ?? timings;
  }
  if (finish === undefined || timings === undefined) return { what: 'failed', why: 'a stream has no end' };
  return { text: said, finish, timings };
}
