import { secondBest } from './argmax.js';
import {
  draw,
  excess,
  likeliest,
  probability,
  type TokenDistribution,
  tokenDistribution,
} from './distribution.js';
import { Logprobs, type TokenLogprob } from './logprobs.js';
import { seededRandom } from './random.js';
import type { SamplingOptions } from './sampling.js';
import { shapeLogits, type TokenConstraint } from './shaping.js';
import { TokenHistory } from './token-history.js';

export interface ChooserOptions extends SamplingOptions {
  readonly promptIds: readonly number[];
  readonly seed?: number;
  readonly logprobs?: number;
  readonly constraint?: TokenConstraint;
}

export interface ChosenToken {
  readonly id: number;
  /** Of the chosen token, in the model's own distribution. */
  readonly logprob?: number;
  readonly top?: readonly TokenLogprob[];
}

export interface Verdict {
  readonly token: ChosenToken;
  /** Whether the drafted token was taken. */
  readonly accepted: boolean;
  /** Greedy decoding only: the two best logits are so close that rounding could have turned them round. */
  readonly tie: boolean;
}

/** Logits closer than this may come in another order from another kernel. */
const TIE = 1e-3;

/** Chooses the tokens of one answer, in order, and keeps what that depends on: randomness, history, constraint. */
export class TokenChooser {
  readonly history: TokenHistory;
  readonly #options: ChooserOptions;
  readonly #random: () => number;

  constructor(options: ChooserOptions) {
    this.#options = options;
    this.#random = seededRandom(options.seed ?? 0);
    this.history = new TokenHistory(options.promptIds);
  }

  /** @param logits `[vocabulary]`, not changed */
  choose(logits: Float32Array): ChosenToken {
    const shaped = this.#shape(logits);
    const id = this.#greedy
      ? likeliest(shaped)
      : draw(tokenDistribution(shaped, this.#options), this.#random);
    return this.#take(logits, id);
  }

  /**
   * Chooses as `choose` does, in a pass that checks drafts.
   *
   * A draft that was not drawn (`drafted` absent: looked up, or a drafter's most likely token) is taken when it is
   * what `choose` gives: with the same seed the answer is the one without drafts, and no rule accepts more often. A
   * draft x that was drawn from q is taken with probability min(1, p(x) / q(x)), otherwise the token is drawn from
   * max(0, p - q) scaled to sum to 1, so that it has the distribution p all the same (Leviathan et al., arXiv
   * 2211.17192, section 2.3 and appendix A.1; Chen et al., arXiv 2302.01318, theorem 1).
   *
   * @param draft the token that was drafted for this place; absent behind the last draft
   * @param drafted the distribution q that `draft` was drawn from
   */
  verify(logits: Float32Array, draft?: number, drafted?: TokenDistribution): Verdict {
    const shaped = this.#shape(logits);
    if (this.#greedy) {
      const id = likeliest(shaped);
      const token = this.#take(logits, id);
      return { token, accepted: id === draft, tie: shaped[id]! - secondBest(shaped, id) < TIE };
    }
    const wanted = tokenDistribution(shaped, this.#options);
    if (draft === undefined || drafted === undefined) {
      const id = draw(wanted, this.#random);
      return { token: this.#take(logits, id), accepted: id === draft, tie: false };
    }
    if (this.#random() * probability(drafted, draft) < probability(wanted, draft)) {
      return { token: this.#take(logits, draft), accepted: true, tie: false };
    }
    const id = draw(excess(wanted, drafted), this.#random);
    return { token: this.#take(logits, id), accepted: false, tie: false };
  }

  get #greedy(): boolean {
    return (this.#options.temperature ?? 0) === 0;
  }

  #shape(logits: Float32Array): Float32Array {
    const { constraint } = this.#options;
    return shapeLogits(logits, this.#options, this.history, constraint?.allowed());
  }

  #take(logits: Float32Array, id: number): ChosenToken {
    const { constraint, logprobs } = this.#options;
    this.history.push(id);
    constraint?.accept(id);
    if (logprobs === undefined) return { id };
    const position = new Logprobs(logits);
    const logprob = position.of(id);
    return logprobs === 0 ? { id, logprob } : { id, logprob, top: position.top(logprobs) };
  }
}
