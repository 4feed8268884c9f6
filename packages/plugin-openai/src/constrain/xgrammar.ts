import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import type * as Library from '@mlc-ai/web-xgrammar';

/** xgrammar, in a memory of its own. */
export type XGrammar = Pick<typeof Library, 'GrammarCompiler' | 'GrammarMatcher' | 'TokenizerInfo'>;

/**
 * Loads xgrammar's WebAssembly build once more.
 *
 * The published file is a CommonJS script under a manifest that calls it an ECMAScript module, so that Node.js can
 * neither import nor require it: it is read and called as the script that it is. It writes what it thinks of grammars
 * to the console, and after a fault its memory is not to be trusted: hence a console without a voice, and a
 * memory for each call.
 */
export function loadXGrammar(): XGrammar {
  const require = createRequire(import.meta.url);
  const file = require.resolve('@mlc-ai/web-xgrammar');
  const source = readFileSync(file, 'utf8').replace("await import('module')", "require('module')");
  const exports = {};
  const silent = { log() {}, info() {}, warn() {}, error() {} };
  const script = new Function('exports', 'module', 'require', '__filename', 'console', source);
  script(exports, { exports }, require, file, silent);
  return exports as XGrammar;
}
