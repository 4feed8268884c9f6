// @ts-check
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { randomOf } from './random.mjs';

const root = fileURLToPath(new URL('../../../', import.meta.url));

/**
 * A request of the soak.
 *
 * @typedef {object} SoakRequest
 * @property {number} number
 * @property {'chat' | 'completion' | 'echo' | 'echoOnly' | 'sampled'} kind
 * @property {string} path
 * @property {boolean} stream
 * @property {boolean} greedy
 * @property {string} prompt
 * @property {number} maxTokens
 * @property {Record<string, unknown>} body
 * @property {number | undefined} dropAfterMs the client goes away then
 */

/** What is asked about; enough of it that most prompts share nothing. */
function ownText() {
  const docs = path.join(root, 'docs/adr');
  return readdirSync(docs)
    .filter((name) => name.endsWith('.md'))
    .sort()
    .map((name) => readFileSync(path.join(docs, name), 'utf8'))
    .join('\n')
    .replaceAll(/\s+/g, ' ');
}

/** How many prompts there are; requests share them, so that the engine need not answer each of its own. */
const PROMPTS = 48;
const KINDS = /** @type {const} */ ([
  'chat',
  'chat',
  'completion',
  'completion',
  'echo',
  'echoOnly',
  'sampled',
]);

/**
 * All requests, the same for a seed.
 *
 * @param {{ count: number, model: string, context: number, drop: number, seed: number }} options
 * @returns {SoakRequest[]}
 */
export function soakRequests({ count, model, context, drop, seed }) {
  const random = randomOf(seed);
  const text = ownText();
  // A character may be as much as a token.
  const longest = Math.min(1600, Math.floor(context / 2) - 48);
  const prompts = Array.from({ length: PROMPTS }, () => {
    // Short ones are more than long ones.
    const length = 12 + Math.floor(random() ** 2 * (longest - 12));
    const start = Math.floor(random() * (text.length - length));
    const maxTokens = 4 + Math.floor(random() ** 2 * Math.min(60, context / 4 - 4));
    return { prompt: text.slice(start, start + length).trim(), maxTokens };
  });
  return Array.from({ length: count }, (_, number) => {
    const kind = KINDS[Math.floor(random() * KINDS.length)] ?? 'chat';
    const { prompt, maxTokens } = prompts[Math.floor(random() * PROMPTS)] ?? { prompt: 'x', maxTokens: 4 };
    const stream = random() < 0.5;
    const dropAfterMs = random() < drop ? Math.floor(random() ** 2 * 4000) : undefined;
    const chat = kind === 'chat' || (kind === 'sampled' && number % 2 === 0);
    const body = {
      model,
      stream,
      ...(stream && number % 3 === 0 ? { stream_options: { include_usage: true } } : {}),
      max_tokens: kind === 'echoOnly' ? 0 : maxTokens,
      ...(kind === 'sampled' ? { temperature: 0.9, top_p: 0.95, seed: number } : { temperature: 0 }),
      ...(chat ? { messages: [{ role: 'user', content: prompt }] } : { prompt }),
      ...(kind === 'echo' || kind === 'echoOnly' ? { echo: true, logprobs: 2 } : {}),
      ...(kind === 'chat' && number % 4 === 0 ? { logprobs: true, top_logprobs: 2 } : {}),
    };
    return {
      number,
      kind,
      path: chat ? '/v1/chat/completions' : '/v1/completions',
      stream,
      greedy: kind !== 'sampled',
      prompt,
      maxTokens,
      body,
      dropAfterMs,
    };
  });
}
