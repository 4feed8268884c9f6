import type { Command } from '../command.js';
import { bench } from './bench.js';
import { chat } from './chat.js';
import { fetchCommand } from './fetch.js';
import { importCommand } from './import.js';
import { inspect } from './inspect.js';

/** All commands, in the order in which a model goes through them. */
export const commands: readonly Command[] = [fetchCommand, importCommand, inspect, chat, bench];
