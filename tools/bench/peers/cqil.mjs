// @ts-check
/** Our own loop over a model folder's graph: `node cqil.mjs <onnx file> <threads> [native|node]`. */
import { argmax, DecoderSession } from '@cqil/runtime-gpu';
import { serveEngine } from './engine.mjs';

const [file = '', threads = '2', binding = 'native'] = process.argv.slice(2);
await serveEngine(async () => {
  const decoder = await DecoderSession.open(file, {
    threads: Number(threads),
    // onnxruntime-node as a program of the user's has it.
    ...(binding === 'node' ? { binding, config: { 'session.force_spinning_stop': '0' } } : {}),
  });
  return {
    async run({ prompt, decode }) {
      let start = performance.now();
      const capacity = prompt.length + decode;
      let step = await decoder.forward({ inputIds: [prompt], keep: 'last', capacity });
      const prefillMs = performance.now() - start;
      const tokenMs = [];
      const ids = [];
      const into = new Float32Array(step.logits.dims[2]);
      for (let i = 0; i < decode; i++) {
        start = performance.now();
        const id = argmax(step.logits.data);
        ids.push(id);
        step = await decoder.forward({ inputIds: [[id]], keep: 'last', cache: step.cache, into });
        tokenMs.push(performance.now() - start);
      }
      step.cache.dispose();
      return { prefillMs, tokenMs, ids };
    },
  };
});
