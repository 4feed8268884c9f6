import type { Command } from '../command.js';
import { bench } from './bench.js';
import { chat } from './chat.js';
import { doctor } from './doctor.js';
import { exits } from './exits.js';
import { fetchCommand } from './fetch.js';
import { fuse } from './fuse.js';
import { importCommand } from './import.js';
import { inspect } from './inspect.js';
import { optimize } from './optimize.js';
import { partition } from './partition.js';
import { plan } from './plan.js';
import { probe } from './probe.js';
import { profile } from './profile.js';
import { quantise } from './quantise.js';
import { report } from './report.js';
import { rewrite } from './rewrite.js';
import { serve } from './serve.js';
import { simulate } from './simulate.js';
import { verify } from './verify.js';

/** All commands, in the order in which a model goes through them. */
export const commands: readonly Command[] = [
  fetchCommand,
  importCommand,
  inspect,
  fuse,
  optimize,
  report,
  probe,
  plan,
  rewrite,
  partition,
  verify,
  quantise,
  exits,
  chat,
  serve,
  bench,
  profile,
  simulate,
  doctor,
];
