import type { CompiledGrammar, GrammarCompiler, GrammarMatcher, TokenizerInfo } from '@mlc-ai/web-xgrammar';
import type { JsonSchema } from '../model.js';
import type { Vocabulary } from '../text/vocabulary.js';
import { schemaGrammar } from './schema.js';
import { loadXGrammar, type XGrammar } from './xgrammar.js';

/** How many compiled grammars are kept. */
const KEPT = 32;

interface Engine {
  readonly library: XGrammar;
  readonly info: TokenizerInfo;
  readonly compiler: GrammarCompiler;
}

/** Holds answers of one model to JSON Schemas, by xgrammar (Dong et al., arXiv 2411.15100). */
export class Grammars {
  readonly #vocabulary: Vocabulary;
  readonly #size: number;
  readonly #endIds: readonly number[];
  #engine: Promise<Engine> | undefined;
  /** By the schema's text, those used last at the end. */
  readonly #compiled = new Map<string, Promise<CompiledGrammar>>();

  /**
   * @param size how many logits the model has; may be more than the tokenizer has tokens
   * @param endIds the tokens that end an answer
   */
  constructor(vocabulary: Vocabulary, size: number, endIds: readonly number[]) {
    this.#vocabulary = vocabulary;
    this.#size = size;
    this.#endIds = endIds;
  }

  /**
   * Makes a schema ready.
   *
   * @throws SchemaError for what cannot be held to
   */
  async compile(schema: JsonSchema): Promise<CompiledGrammar> {
    const key = JSON.stringify(schema);
    const known = this.#compiled.get(key);
    this.#compiled.delete(key);
    const compiled = known ?? this.#compile(schemaGrammar(schema));
    this.#compiled.set(key, compiled);
    compiled.catch(() => this.#compiled.delete(key));
    for (const oldest of this.#compiled.keys()) {
      if (this.#compiled.size <= KEPT) break;
      this.#compiled.delete(oldest);
    }
    return compiled;
  }

  /** A constraint for one answer; `dispose` frees it. */
  async constrain(schema: JsonSchema): Promise<GrammarConstraint> {
    const compiled = await this.compile(schema);
    const { library } = await this.#open();
    const matcher = await library.GrammarMatcher.createGrammarMatcher(compiled, [...this.#endIds]);
    return GrammarConstraint.start(matcher);
  }

  async #compile(grammar: string): Promise<CompiledGrammar> {
    const { compiler } = await this.#open();
    try {
      return await compiler.compileGrammar(grammar);
    } catch (cause) {
      // Its memory is not to be trusted after a fault.
      this.#engine = undefined;
      this.#compiled.clear();
      throw new Error('the grammar could not be compiled', { cause });
    }
  }

  #open(): Promise<Engine> {
    this.#engine ??= this.#load();
    return this.#engine;
  }

  async #load(): Promise<Engine> {
    const library = loadXGrammar();
    const { kind, forGrammars } = this.#vocabulary;
    const info = await library.TokenizerInfo.createTokenizerInfo(forGrammars(), kind, false, this.#size, [
      ...this.#endIds,
    ]);
    return { library, info, compiler: await library.GrammarCompiler.createGrammarCompiler(info, false) };
  }
}

/** Which tokens may come next in one answer. */
export class GrammarConstraint {
  readonly #matcher: GrammarMatcher;
  #mask: Uint32Array | undefined;
  #next: Promise<void> | undefined;

  private constructor(matcher: GrammarMatcher) {
    this.#matcher = matcher;
  }

  static async start(matcher: GrammarMatcher): Promise<GrammarConstraint> {
    const constraint = new GrammarConstraint(matcher);
    await constraint.#look();
    return constraint;
  }

  /** One bit for each token, lowest first. */
  allowed(): Uint32Array {
    if (this.#mask === undefined) throw new Error('settle() has not been waited for.');
    return this.#mask;
  }

  accept(id: number): void {
    if (!this.#matcher.acceptToken(id)) throw new Error(`The grammar does not take the token ${id}.`);
    this.#mask = undefined;
    this.#next = this.#matcher.isTerminated() ? undefined : this.#look();
    this.#next?.catch(() => {});
  }

  /** Waits for what may follow the token that was accepted last. */
  async settle(): Promise<void> {
    await this.#next;
  }

  dispose(): void {
    this.#matcher.dispose();
  }

  async #look(): Promise<void> {
    const mask = await this.#matcher.getNextTokenBitmask();
    this.#mask = new Uint32Array(mask.buffer, mask.byteOffset, mask.length);
  }
}
