#!/usr/bin/env node
import { main } from './main.js';
import { EXIT } from './terminal/failure.js';
import { interruption } from './terminal/interruption.js';

// A reader that goes away (`cqil inspect … | head`) is no failure of ours.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(process.exitCode ?? 0);
  throw error;
});

const { signal, exitCode } = interruption(process);
const code = await main(process.argv.slice(2), { stdout: process.stdout, stderr: process.stderr, signal });
// A command that ends well when it is told to stop, a server, has ended well.
process.exitCode = code === EXIT.interrupted ? (exitCode() ?? code) : code;
