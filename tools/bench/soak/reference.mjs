// @ts-check
import { openTextModel } from '@cqil/plugin-openai';

/** Two tokens whose logits are closer than this may change places: kernels for several rows round otherwise. */
const TIE = 1e-3;

/**
 * What an answer is against the engine's. `tie`: it parts from it where two tokens are closer than 0.001. `rounding`: where
 * they are closer than the engine's kernels for one row and for several are to each other (with 4-bit weights and 8-bit
 * activations they differ by far more than the last bits).
 *
 * @typedef {{ readonly what: 'same' | 'tie' | 'rounding' | 'different', readonly gap: number, readonly wanted: string, readonly got: string }} Verdict
 *
 * @typedef {object} Step
 * @property {number} end characters up to here
 * @property {readonly number[]} bytes of its token; none of an end
 * @property {number} gap log probability of the likeliest token less that of the next, by steps of one token
 */

/** What the engine by itself says: one sequence after the other, nothing kept between them, no server. */
export class Reference {
  /** The most that a gap differed between kernels for one row and for several. */
  rounding = 0;
  /** @type {Map<string, Promise<{ text: string, steps: Step[] }>>} */
  #answers = new Map();
  #model;

  /** @param {import('@cqil/plugin-openai').LocalTextModel} model */
  constructor(model) {
    this.#model = model;
  }

  /** @param {string} folder */
  static async open(folder) {
    return new Reference(await openTextModel(folder, { parallel: 1, keptPrefixes: 0 }));
  }

  /**
   * Makes the engine's answers to all of these requests, and measures the kernels by them.
   *
   * @param {Iterable<import('./requests.mjs').SoakRequest>} requests
   */
  async prepare(requests) {
    for (const request of requests) if (request.kind !== 'echoOnly') await this.#answer(request);
  }

  /**
   * @param {import('./requests.mjs').SoakRequest} request
   * @param {string} text
   * @returns {Promise<Verdict>}
   */
  async compare(request, text) {
    const { kind, prompt } = request;
    const echo = kind === 'echo' || kind === 'echoOnly' ? prompt : '';
    const { text: wanted, steps } =
      kind === 'echoOnly' ? { text: '', steps: [] } : await this.#answer(request);
    const whole = echo + wanted;
    let at = 0;
    while (at < text.length && text[at] === whole[at]) at += 1;
    const from = (/** @type {string} */ said) => said.slice(at, at + 40);
    if (text === whole) return { what: 'same', gap: 0, wanted: '', got: '' };
    // The first step whose text goes beyond what is the same; an end has none, and comes last.
    const step = steps.find(({ end }) => echo.length + end > at) ?? steps.at(-1);
    const gap = Math.min(...stretch(steps, step).map((one) => one.gap));
    const what = gap < TIE ? 'tie' : gap <= this.rounding ? 'rounding' : 'different';
    return { what, gap, wanted: from(whole), got: from(text) };
  }

  /** @param {import('./requests.mjs').SoakRequest} request */
  #answer({ kind, prompt, maxTokens }) {
    const chat = kind === 'chat';
    const key = `${chat} ${maxTokens} ${prompt}`;
    let answer = this.#answers.get(key);
    if (answer === undefined) {
      answer = this.#make(chat, prompt, maxTokens);
      this.#answers.set(key, answer);
    }
    return answer;
  }

  /** @param {boolean} chat @param {string} prompt @param {number} maxTokens */
  async #make(chat, prompt, maxTokens) {
    const promptIds = await (chat
      ? this.#model.encodeChat([{ role: 'user', content: prompt }])
      : this.#model.encode(prompt));
    const signal = new AbortController().signal;
    const request = { promptIds, maxTokens, temperature: 0, topP: 1, seed: 0, logprobs: 2, signal };
    let text = '';
    /** @type {Step[]} */
    const steps = [];
    for await (const piece of this.#model.generate(request)) {
      if (piece.tokens === 0) continue;
      text += piece.text;
      const [first, second] = piece.logprob?.top ?? [];
      // An end tells none; nothing can be said of how near another token was.
      const gap = first === undefined || second === undefined ? 0 : first.logprob - second.logprob;
      steps.push({ end: text.length, bytes: piece.logprob?.bytes ?? [], gap });
    }
    await this.#measure(promptIds, text, steps);
    return { text, steps };
  }

  /**
   * Reads prompt and answer at once, by the kernels for several rows.
   *
   * @param {readonly number[]} promptIds
   * @param {string} text
   * @param {readonly Step[]} steps
   */
  async #measure(promptIds, text, steps) {
    const answerIds = await this.#model.encode(text, { special: false });
    const signal = new AbortController().signal;
    const read = { temperature: 0, topP: 1, seed: 0, logprobs: 2, promptLogprobs: true, signal };
    const ids = [...promptIds, ...answerIds.slice(0, steps.length)];
    for await (const { prompt = [] } of this.#model.generate({ ...read, promptIds: ids, maxTokens: 0 })) {
      // The first answer's token comes of the prompt, which is read by the same kernels both times.
      for (const [i, { bytes, logprob, top }] of prompt.slice(promptIds.length).entries()) {
        // Behind a token that the text was not made of, everything is something else.
        if (String(bytes) !== String(steps[i]?.bytes)) return;
        if (i === 0) continue;
        const other = top.find((one) => one.logprob !== logprob)?.logprob;
        const gap = steps[i]?.gap;
        if (logprob === null || other === undefined || gap === undefined) continue;
        this.rounding = Math.max(this.rounding, Math.abs(logprob - other - gap));
      }
    }
  }

  /** How many answers the engine has made. */
  get size() {
    return this.#answers.size;
  }

  dispose() {
    return this.#model.dispose();
  }
}

/**
 * A step and those before it without text of their own: characters of several tokens show only with their last, and any
 * of them may be where answers part.
 *
 * @param {readonly Step[]} steps
 * @param {Step | undefined} step
 */
function stretch(steps, step) {
  if (step === undefined) return [];
  const last = steps.indexOf(step);
  let first = last;
  while (first > 0 && steps[first - 1]?.end === (steps[first - 2]?.end ?? 0)) first -= 1;
  return steps.slice(first, last + 1);
}
