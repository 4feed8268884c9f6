import { createRequire } from 'node:module';
import { UsageError } from '@cqil/core';
import yargs from 'yargs';
import type { BoundRun, CommandContext } from './command.js';
import { commands } from './commands/index.js';
import { takeRefusal } from './options.js';
import { suggestion } from './suggest.js';
import { EXIT, exitCodeOf, failureDocument, printFailure } from './terminal/failure.js';
import { type ProgressDisplay, progressDisplay } from './terminal/progress.js';
import type { Sink } from './terminal/sink.js';

export interface MainOptions {
  readonly stdout: Sink;
  readonly stderr: Sink;
  /** Stops the command; it ends with 130. */
  readonly signal?: AbortSignal;
  readonly env?: NodeJS.ProcessEnv;
}

/**
 * Runs `cqil` once.
 *
 * With `--json` exactly one JSON document goes to `stdout`: the result, or `{"error": {…}}`. Everything else,
 * progress included, goes to `stderr`; without `--json` the result's text goes there too.
 *
 * @param argv the words after the program's name
 * @returns the exit code: 0 well, 1 a check failed, 2 wrong usage or bad input, 130 stopped
 * @example
 * const code = await main(['inspect', 'models/tiny'], { stdout: process.stdout, stderr: process.stderr });
 */
export async function main(argv: readonly string[], options: MainOptions): Promise<number> {
  const { stdout, stderr, env = process.env } = options;
  const signal = options.signal ?? new AbortController().signal;
  const json = argv.includes('--json');
  const print = (document: unknown): unknown => stdout.write(`${JSON.stringify(document, null, 2)}\n`);
  const display = progressDisplay(stderr);
  try {
    const parsed = parse(argv);
    if (parsed.kind === 'help') {
      (parsed.asked ? stdout : stderr).write(`${parsed.text}\n`);
      return parsed.asked ? EXIT.well : EXIT.badInput;
    }
    const result = await parsed.run(context(display, { stdout, stderr, json, signal }));
    display.stop();
    if (json) print(result.document);
    else if (result.text !== undefined) stderr.write(`${result.text}\n`);
    return result.failed === true ? EXIT.checkFailed : EXIT.well;
  } catch (error) {
    display.stop();
    // A library that is told to stop may say so in words of its own.
    const reported = signal.aborted ? signal.reason : error;
    if (json) print(failureDocument(reported));
    printFailure(reported, stderr, env.CQIL_DEBUG !== undefined && env.CQIL_DEBUG !== '');
    return exitCodeOf(reported);
  }
}

function context(
  display: ProgressDisplay,
  base: Pick<CommandContext, 'stdout' | 'stderr' | 'json' | 'signal'>,
): CommandContext {
  return {
    ...base,
    onProgress: display.onProgress,
    note(line) {
      display.stop();
      base.stderr.write(`${line}\n`);
    },
  };
}

type Parsed =
  | { readonly kind: 'help'; readonly text: string; readonly asked: boolean }
  | { readonly kind: 'command'; readonly run: BoundRun };

function parse(argv: readonly string[]): Parsed {
  const names = commands.map(({ name }) => name);
  const word = argv.find((argument) => !argument.startsWith('-'));
  if (word !== undefined && !names.includes(word)) throw unknownCommand(word, names);

  let chosen: Parsed | undefined;
  let known: string[] = [];
  const parser = yargs()
    .scriptName('cqil')
    .locale('en')
    .usage(
      'cqil <command>\n\nRuns quasi-independent neighbouring layers of a language model at the same time (CQIL).',
    )
    .parserConfiguration({ 'parse-numbers': false, 'parse-positional-numbers': false, 'dot-notation': false })
    .option('json', {
      type: 'boolean',
      default: false,
      describe: 'print one JSON document on stdout, nothing else',
    })
    .version(version())
    .help()
    .wrap(100)
    .strict()
    .epilogue('Exit codes: 0 well, 1 a check failed, 2 wrong usage or bad input.');
  for (const command of commands) {
    command.register(parser, {
      options: (built) => {
        known = optionNames(built);
      },
      choose: (run) => {
        chosen = { kind: 'command', run };
      },
    });
  }
  let output = '';
  takeRefusal();
  let failure: Error | null | undefined;
  // Without a command the help is what there is to say.
  parser.parse(
    word === undefined ? [...argv, ...(argv.includes('--version') ? [] : ['--help'])] : [...argv],
    {},
    (error: Error | null | undefined, _args: unknown, text: string) => {
      failure = error;
      output = text;
    },
  );
  if (failure) throw takeRefusal() ?? wrongUsage(failure.message, word, known);
  if (chosen !== undefined) return chosen;
  return {
    kind: 'help',
    text: output,
    asked: argv.includes('--help') || argv.includes('--version'),
  };
}

function unknownCommand(word: string, names: readonly string[]): UsageError {
  const meant = suggestion(word, names);
  return new UsageError('COMMAND_UNKNOWN', `There is no command ${JSON.stringify(word)}.`, {
    expected: names.join(', '),
    found: word,
    hint: meant === undefined ? 'see cqil --help' : `did you mean cqil ${meant}?`,
  });
}

function wrongUsage(message: string, command: string | undefined, known: readonly string[]): UsageError {
  const help = `see cqil ${command === undefined ? '' : `${command} `}--help`;
  const unknown = /^Unknown arguments?: (.+)$/.exec(message)?.[1]?.split(', ') ?? [];
  const meant = unknown.map((word) => suggestion(word, known)).find((word) => word !== undefined);
  return new UsageError(
    unknown.length > 0 ? 'OPTION_UNKNOWN' : 'USAGE_WRONG',
    message.split('\n')[0] ?? message,
    {
      hint: meant === undefined ? help : `did you mean --${meant}? ${help}`,
    },
  );
}

/** yargs knows its options by this method, which its types leave out. */
function optionNames(parser: unknown): string[] {
  const { key } = (parser as { getOptions(): { key: Record<string, unknown> } }).getOptions();
  return Object.keys(key);
}

function version(): string {
  const manifest = createRequire(import.meta.url)('../package.json') as { version: string };
  return manifest.version;
}
