// @ts-check
/**
 * llama.cpp through node-llama-cpp: `node llama-cpp.mjs <gguf> <threads> <contextSize>`, with node-llama-cpp where
 * `CQIL_BENCH_MODULES` says (a folder with a node_modules in it).
 */
import { createRequire } from 'node:module';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { serveEngine } from './engine.mjs';

const [file = '', threads = '2', contextSize = '4096'] = process.argv.slice(2);
await serveEngine(async () => {
  const require = createRequire(path.join(process.env.CQIL_BENCH_MODULES ?? process.cwd(), 'package.json'));
  const { getLlama } = await import(pathToFileURL(require.resolve('node-llama-cpp')).href);
  const llama = await getLlama({
    gpu: false,
    build: 'never',
    logLevel: 'error',
    maxThreads: Number(threads),
  });
  const model = await llama.loadModel({ modelPath: file });
  const context = await model.createContext({
    contextSize: Number(contextSize),
    threads: { ideal: Number(threads), min: Number(threads) },
    batchSize: 512,
  });
  const sequence = context.getSequence();
  return {
    async run({ prompt, decode }) {
      await sequence.clearHistory();
      const start = performance.now();
      let prefillMs = 0;
      let before = start;
      const tokenMs = [];
      /** @type {number[]} */
      const ids = [];
      for await (const token of sequence.evaluate(prompt, {
        temperature: 0,
        yieldEogToken: true,
      })) {
        const now = performance.now();
        // The first token comes when the prompt is through.
        if (ids.length === 0) prefillMs = now - start;
        else tokenMs.push(now - before);
        before = now;
        ids.push(token);
        if (ids.length > decode) break;
      }
      return { prefillMs, tokenMs, ids: ids.slice(0, decode) };
    },
  };
});
