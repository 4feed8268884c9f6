// @ts-check
import { setTimeout as pause } from 'node:timers/promises';
import { BatchedDecoder, DecoderSession, generateTokens, PrefixCache } from '@cqil/runtime-gpu';
import { MemoryCurve, mebibytes, residentBytes } from './memory.mjs';
import { randomOf } from './random.mjs';

/**
 * Generations by the engine, several at a time, that are broken off in all the ways there are: before they begin, after a
 * time, by leaving the loop; with and without caches that are kept, with drafts.
 *
 * @param {string} file
 * @param {{ generations: number, atOnce: number, seed: number, growth: number }} options
 */
export async function soakEngine(file, { generations, atOnce, seed, growth }) {
  const random = randomOf(seed);
  const decoder = await DecoderSession.open(file, { threads: 1 });
  const batched = await BatchedDecoder.over(decoder, { slots: atOnce + 2, promptChunk: 16 });
  const caches = Array.from({ length: 2 }, () => new PrefixCache());
  const faults = [];
  const counts = { whole: 0, aborted: 0, left: 0, tokens: 0 };
  const curve = new MemoryCurve();
  const prompt = (/** @type {number} */ length) =>
    Array.from({ length }, () => 3 + Math.floor(random() * 250));

  /** What the model says to the same prompt, at the beginning and whenever it is asked again. */
  const said = async () => {
    let text = '';
    for await (const { id } of generateTokens(batched, { promptIds: [5, 9, 42, 17], maxTokens: 24 })) {
      text += ` ${id}`;
    }
    return text;
  };
  const first = await said();

  const one = async () => {
    const stop = new AbortController();
    const fate = random();
    const maxTokens = 1 + Math.floor(random() * 40);
    const leaveAfter = fate > 0.7 ? Math.floor(random() * maxTokens) : Number.POSITIVE_INFINITY;
    const timer =
      fate > 0.4 && fate <= 0.7
        ? setTimeout(() => stop.abort(new Error('enough')), random() * 30)
        : undefined;
    if (fate < 0.05) stop.abort(new Error('enough'));
    let tokens = 0;
    try {
      const options = {
        promptIds: prompt(1 + Math.floor(random() * 60)),
        maxTokens,
        temperature: random() < 0.5 ? 0 : 1,
        seed: Math.floor(random() * 1e6),
        signal: stop.signal,
        ...(random() < 0.3 ? { cache: caches[Math.floor(random() * caches.length)] } : {}),
        ...(random() < 0.2 ? { speculate: /** @type {const} */ ({ drafter: 'prompt' }) } : {}),
      };
      for await (const _ of generateTokens(batched, options)) {
        tokens += 1;
        if (tokens > leaveAfter) break;
      }
      if (tokens > leaveAfter) counts.left += 1;
      else counts.whole += 1;
    } catch (cause) {
      if (stop.signal.aborted && cause === stop.signal.reason) counts.aborted += 1;
      else faults.push(`a generation failed: ${cause}`);
    } finally {
      clearTimeout(timer);
      counts.tokens += tokens;
    }
  };

  const began = performance.now();
  let begun = 0;
  let done = 0;
  const sampler = setInterval(() => curve.add(done / generations, residentBytes(process.pid)), 100);
  await Promise.all(
    Array.from({ length: atOnce }, async () => {
      while (begun < generations) {
        begun += 1;
        await one();
        done += 1;
      }
    }),
  );
  clearInterval(sampler);
  const seconds = (performance.now() - began) / 1000;

  for (const cache of caches) cache.dispose();
  // Places are given back when the step under way is over.
  for (let i = 0; i < 100 && batched.sequences > 0; i++) await pause(20);
  if (batched.sequences > 0) faults.push(`${batched.sequences} sequences are still in memory`);
  if (batched.waiting > 0) faults.push(`${batched.waiting} sequences still wait`);
  if ((await said()) !== first) faults.push('the model says something else than at the beginning');
  const memory = curve.verdict(growth);
  if (!memory.flat) {
    faults.push(`memory grew from ${mebibytes(memory.warm)} to ${mebibytes(memory.end)}`);
  }
  batched.dispose();
  await decoder.dispose();
  return {
    faults,
    numbers: { generations, atOnce, seconds, ...counts, memory },
    table: {
      generations: `${done}, ${atOnce} at a time, in ${seconds.toFixed(1)} s`,
      'to their end, aborted, left': `${counts.whole}, ${counts.aborted}, ${counts.left}`,
      tokens: String(counts.tokens),
      'memory behind a third, the middle, end': `${[memory.warm, memory.middle, memory.end].map(mebibytes).join(', ')} (${(100 * memory.growth).toFixed(1)} %)`,
    },
  };
}
