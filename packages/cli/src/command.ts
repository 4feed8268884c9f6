import type { OnProgress } from '@cqil/core';
import type { ArgumentsCamelCase, Argv } from 'yargs';
import type { Sink } from './terminal/sink.js';

/** What a command may use beside its arguments. */
export interface CommandContext {
  /** Fires when the user stops the command. */
  readonly signal: AbortSignal;
  readonly onProgress: OnProgress;
  /** True when the only thing on stdout is to be the result's document. */
  readonly json: boolean;
  /** For what is the result itself and comes bit by bit: a model's answer. */
  readonly stdout: Sink;
  readonly stderr: Sink;
  /** A line for people, among the progress. */
  note(line: string): void;
}

/** What a command came to. */
export interface CommandResult {
  /** The one document that `--json` prints. */
  readonly document: unknown;
  /** The same for people; on stderr, without `--json`. */
  readonly text?: string;
  /** A check was made and failed: exit code 1. */
  readonly failed?: boolean;
}

/** One command of `cqil`: its words, its options, and one function from arguments to a result. */
export interface CommandDefinition<T> {
  /** The name and the positional arguments, as yargs writes them: `inspect <model>`. */
  readonly command: string;
  readonly describe: string;
  readonly examples?: readonly (readonly [command: string, description: string])[];
  readonly options: (yargs: Argv) => Argv<T>;
  readonly run: (args: ArgumentsCamelCase<T>, context: CommandContext) => Promise<CommandResult>;
}

/** A command whose argument types are closed over, so that commands of all kinds make one list. */
export interface Command {
  readonly name: string;
  /** Adds the command to a parser; `choose` is called with the bound run when the words are this command's. */
  register(yargs: Argv, on: { options(built: Argv<unknown>): void; choose(run: BoundRun): void }): void;
}

export type BoundRun = (context: CommandContext) => Promise<CommandResult>;

export function defineCommand<T>(definition: CommandDefinition<T>): Command {
  return {
    name: definition.command.split(' ')[0] as string,
    register(yargs, on) {
      yargs.command<T>({
        command: definition.command,
        describe: definition.describe,
        builder: (inner: Argv) => {
          const built = definition.options(inner);
          for (const [line, meaning] of definition.examples ?? []) built.example(line, meaning);
          on.options(built as Argv<unknown>);
          return built;
        },
        handler: (args) => on.choose((context) => definition.run(args, context)),
      });
    },
  };
}
