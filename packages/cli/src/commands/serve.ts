import { readFile } from 'node:fs/promises';
import { isIP } from 'node:net';
import { availableParallelism } from 'node:os';
import { resolve } from 'node:path';
import { UsageError } from '@cqil/core';
import type {
  FolderSource,
  HandlerOptions,
  ModelFolder,
  ModelFolderOptions,
  ModelSource,
} from '@cqil/plugin-openai';
import { type CommandContext, defineCommand } from '../command.js';
import { byteCount, manyTexts, oneText, wholeNumber } from '../options.js';

/** Keys that come from nowhere else: one, or several with commas between. */
const KEYS_VARIABLE = 'CQIL_API_KEYS';
const PROMPT_LOOKUP = 'prompt-lookup' as const;

export const serve = defineCommand({
  command: 'serve <models..>',
  describe: "serve models with OpenAI's HTTP interface, and a page to chat",
  examples: [
    ['cqil serve models/smollm2', 'the model and what was made of it beside it, at http://127.0.0.1:8080'],
    [
      'cqil serve models/a models/b --memory 4GiB',
      'several, of which as many are open as there is memory for',
    ],
    ['cqil serve models/smollm2 --host 0.0.0.0 --api-key-file keys.txt', 'for others, with keys'],
  ],
  options: (yargs) =>
    yargs
      .positional('models', {
        type: 'string',
        array: true,
        demandOption: true,
        describe: 'model folders; each is served under its name, and variants beside it as <name>:<n>-steps',
      })
      .option('host', {
        type: 'string',
        describe: 'address to listen on (default 127.0.0.1: this machine alone)',
        coerce: oneText('host'),
      })
      .option('port', {
        type: 'string',
        describe: 'port to listen on, 0 for a free one (default 8080)',
        coerce: wholeNumber('port'),
      })
      .option('api-key-file', {
        type: 'string',
        describe: `keys of which requests must have one, a line each; beside those in ${KEYS_VARIABLE}`,
        coerce: oneText('api-key-file'),
      })
      .option('variants', {
        type: 'boolean',
        default: true,
        describe: 'serve rewritten models that lie beside a model as its variants',
      })
      .option('fall-back', {
        type: 'boolean',
        default: false,
        describe: 'let the variant of the fewest steps answer when requests wait for its model',
      })
      .option('page', { type: 'boolean', default: true, describe: 'serve the page to chat at /' })
      .option('metrics', { type: 'boolean', default: false, describe: 'serve /metrics for Prometheus' })
      .option('cors', {
        type: 'string',
        array: true,
        describe: 'origins whose pages may use the server, such as https://example.com; * for all',
        coerce: manyTexts('cors'),
      })
      .option('max-waiting', {
        type: 'string',
        describe: 'requests that wait for a model before more are refused (default 16)',
        coerce: wholeNumber('max-waiting'),
      })
      .option('deadline', {
        type: 'string',
        describe: 'seconds that a request may take (default 600)',
        coerce: wholeNumber('deadline', 1),
      })
      .option('drain', {
        type: 'string',
        describe: 'seconds that requests may take to end when the server is stopped (default 30)',
        coerce: wholeNumber('drain'),
      })
      .option('threads', {
        type: 'string',
        describe: "threads inside an operator (default: ONNX Runtime's choice)",
        coerce: wholeNumber('threads', 1),
      })
      .option('parallel', {
        type: 'string',
        describe: 'requests that a model answers at the same time (default 8)',
        coerce: wholeNumber('parallel', 1),
      })
      .option('memory', {
        type: 'string',
        describe:
          'memory that all models may take together, such as 4GiB: each is opened when it is asked for, and the one used longest ago is closed to make room (default: no limit, and all open at the start)',
        coerce: byteCount('memory'),
      })
      .option('draft', {
        type: 'string',
        describe:
          'draft tokens and check several in a step, for a request that has the model to itself: prompt-lookup (what stood in prompt and answer before), or the folder of a faster model of the same tokenizer',
        coerce: oneText('draft'),
      })
      .option('draft-threads', {
        type: 'string',
        describe:
          'let the drafting model compute at the same time, on so many threads of its own; the model then has what is left of the processors',
        coerce: wholeNumber('draft-threads', 1),
      })
      .option('log-level', {
        type: 'string',
        default: 'info',
        choices: ['info', 'error', 'silent'],
        describe: 'which requests are logged, as JSON on stderr',
      })
      .option('log-prompts', {
        type: 'boolean',
        default: false,
        describe: 'write prompts into the log',
      }),
  async run(args, context) {
    const keys = [...(await keysOf(args.apiKeyFile)), ...keysIn(process.env[KEYS_VARIABLE] ?? '', ',')];
    const host = args.host ?? '127.0.0.1';
    const [{ createOpenAIHandler, openModelFolder, serve: listen }, { pino }] = await Promise.all([
      import('@cqil/plugin-openai'),
      import('pino'),
    ]);
    const settings = {
      ...(await sessionsOf(args)),
      ...(args.parallel === undefined ? {} : { parallel: args.parallel }),
    };
    const folders: ModelFolder[] = [];
    try {
      for (const path of args.models) {
        const eager = args.memory === undefined;
        folders.push(await openModelFolder(path, { variants: args.variants, eager, ...settings }));
      }
      if (args.memory !== undefined) await checkMemory(folders, args.memory);
      const { sources, failure } = watched(distinct(folders));
      const logger = pino(
        { level: args.logLevel, base: null },
        { write: (line) => context.stderr.write(line) },
      );
      const options: HandlerOptions = {
        models: sources,
        apiKeys: keys,
        page: args.page,
        metrics: args.metrics,
        logger,
        logPrompts: args.logPrompts,
        fallbacks: args.fallBack ? fallbacksOf(folders) : {},
        onError: (cause) => logger.error({ err: cause }, 'fault in a model'),
        ...(args.cors === undefined ? {} : { cors: { origins: args.cors.includes('*') ? '*' : args.cors } }),
        ...(args.memory === undefined ? {} : { memoryBytes: args.memory }),
        ...(args.maxWaiting === undefined ? {} : { maxWaiting: args.maxWaiting }),
        ...(args.deadline === undefined ? {} : { deadlineMs: args.deadline * 1000 }),
      };
      const handler = createOpenAIHandler(options);
      const server = await listen(handler, { hostname: host, port: args.port ?? 8080 });
      const models = sources.map(({ id }) => id);
      logger.info({ url: server.url, models }, 'listening');
      context.note(`${models.join(', ')} at ${server.url}${args.page ? ', with a page to chat' : ''}`);
      if (keys.length === 0 && !isLoopback(host)) {
        context.note('Everyone who reaches this address can use the models: no API key is set.');
      }
      try {
        await Promise.race([stopped(context), failure]);
      } finally {
        // What is under way ends well; a second signal ends the process at once.
        await server.close({ drainMs: (args.drain ?? 30) * 1000 });
        logger.info('closed');
      }
      return { document: { url: server.url, models } };
    } finally {
      await Promise.all(folders.map((folder) => folder.dispose()));
    }
  },
});

/**
 * The threads of the model, and what drafts for it; models that compute at the same time share the processors.
 *
 * @throws UsageError `DRAFT_THREADS_UNUSED`, `DRAFT_THREADS_TOO_MANY`, `DRAFT_MODEL_SAME`
 */
async function sessionsOf(args: {
  readonly models: readonly string[];
  readonly threads: number | undefined;
  readonly draft: string | undefined;
  readonly draftThreads: number | undefined;
}): Promise<Pick<ModelFolderOptions, 'draft' | 'session'>> {
  const { models, threads, draft, draftThreads } = args;
  const own = threads === undefined ? {} : { session: { threads } };
  if (draft === undefined || draft === PROMPT_LOOKUP) {
    if (draftThreads !== undefined) {
      throw new UsageError('DRAFT_THREADS_UNUSED', '--draft-threads is for a drafting model.', {
        expected: '--draft with the folder of a model',
        found: draft === undefined ? 'no --draft' : `--draft ${draft}`,
        hint: 'leave --draft-threads out, or name a model by --draft',
      });
    }
    return { ...own, ...(draft === undefined ? {} : { draft }) };
  }
  if (models.every((model) => resolve(model) === resolve(draft))) {
    throw new UsageError('DRAFT_MODEL_SAME', 'A model cannot draft for itself.', {
      expected: 'a faster model of the same tokenizer: in fewer bits, or by a plan',
      found: draft,
      hint: 'name another folder by --draft, or draft by prompt-lookup',
    });
  }
  if (draftThreads === undefined) {
    // As many as ONNX Runtime would take, but without its own binding to processors: the threads of both models would be bound
    // to the same ones.
    const { readHardware } = await import('@cqil/runtime-gpu');
    const { physicalCores, cores } = await readHardware();
    const session = { threads: threads ?? physicalCores ?? cores };
    return { session, draft: { folder: draft, session } };
  }
  const processors = availableParallelism();
  const left = threads ?? processors - draftThreads;
  if (left < 1) {
    throw new UsageError('DRAFT_THREADS_TOO_MANY', 'The drafting model leaves no processor to the model.', {
      expected: `--draft-threads of at most ${processors - 1}`,
      found: String(draftThreads),
      hint: 'give fewer, or leave --draft-threads out: both models then have all processors in turn',
    });
  }
  // Together they have all processors: the threads of neither may look for work where the other computes.
  const session = (count: number) => ({ threads: count, config: { 'session.force_spinning_stop': '1' } });
  return {
    session: session(left),
    draft: { folder: draft, asynchronous: true, session: session(draftThreads) },
  };
}

function stopped({ signal }: CommandContext): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}

/** The sources, and a promise that is broken when one that must be there from the start cannot be opened. */
function watched(sources: readonly FolderSource[]): {
  readonly sources: readonly ModelSource[];
  readonly failure: Promise<never>;
} {
  let fail: (cause: unknown) => void = () => {};
  const failure = new Promise<never>((_, reject) => {
    fail = reject;
  });
  failure.catch(() => {});
  const all = sources.map((source): ModelSource => {
    const { eager = false, memory } = source;
    const told =
      <T>(step: () => Promise<T>) =>
      async (): Promise<T> => {
        try {
          return await step();
        } catch (cause) {
          if (eager) fail(cause);
          throw cause;
        }
      };
    const open = told(() => source.open());
    // What it takes is asked before it is opened, and finds the same faults.
    return { ...source, open, ...(memory === undefined ? {} : { memory: told(() => memory.call(source)) }) };
  });
  return { sources: all, failure };
}

/**
 * A model that is named must be one, and there must be room for it alone.
 *
 * @throws UsageError `MODEL_TOO_LARGE`, and what `openTextModel` throws for folders that are no model
 */
async function checkMemory(folders: readonly ModelFolder[], limit: number): Promise<void> {
  for (const { sources } of folders) {
    const [model] = sources;
    const bytes = await model?.memory?.();
    if (model === undefined || bytes === undefined || bytes <= limit) continue;
    const mebibytes = (count: number) => `${Math.ceil(count / 2 ** 20)}MiB`;
    throw new UsageError('MODEL_TOO_LARGE', `${model.folder} does not fit into the memory of --memory.`, {
      expected: `at most ${mebibytes(limit)}`,
      found: `about ${mebibytes(bytes)}`,
      hint: `allow more, as --memory ${mebibytes(bytes)}, or less at the same time by --parallel`,
    });
  }
}

/** A folder that is named, and lies beside another that is, is served once, as that one's variant. */
function distinct(folders: readonly ModelFolder[]): FolderSource[] {
  const variants = new Set(folders.flatMap(({ sources }) => sources.slice(1)).map((source) => source.folder));
  const sources = folders.flatMap((one) =>
    one.sources.filter((source, i) => i > 0 || !variants.has(source.folder)),
  );
  return [...new Map(sources.map((source) => [source.folder, source])).values()];
}

/** From each model that has variants to the one of the fewest steps. */
function fallbacksOf(folders: readonly ModelFolder[]): Record<string, string> {
  return Object.fromEntries(
    folders.flatMap(({ sources }) => {
      const [model, ...variants] = sources;
      const fastest = variants.at(-1);
      return model === undefined || fastest === undefined ? [] : [[model.id, fastest.id]];
    }),
  );
}

async function keysOf(file: string | undefined): Promise<string[]> {
  if (file === undefined) return [];
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (cause) {
    throw new UsageError('FILE_UNREADABLE', `${file} cannot be read.`, {
      expected: 'a file with a key on each line',
      found: cause instanceof Error ? cause.message : String(cause),
      hint: 'check the path',
      cause,
    });
  }
  const keys = keysIn(text, '\n').filter((line) => !line.startsWith('#'));
  if (keys.length > 0) return keys;
  // A server that was to have keys must not stand open.
  throw new UsageError('API_KEYS_MISSING', `${file} holds no key.`, {
    expected: 'a key on each line',
    found: 'none',
    hint: 'write a key into it',
  });
}

function keysIn(text: string, separator: string): string[] {
  return text
    .split(separator)
    .map((key) => key.trim())
    .filter((key) => key !== '');
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));
}
