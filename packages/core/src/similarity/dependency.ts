import { MetricError } from '../errors.js';
import { checkActivations } from './activations.js';
import { cosineOf } from './angles.js';
import { isKept, type TokenMask } from './mask.js';

/** How much a block depends on an earlier one. */
export interface BlockDependency {
  /** Mean over tokens of 1 − cos, in [0, 2]: 0 where leaving the earlier block out changes no direction. */
  readonly distance: number;
  /** Tokens that counted. */
  readonly tokens: number;
}

/** What a `BlockDependencyAccumulator` is made for. */
export interface BlockDependencyOptions {
  /** Width of the residual stream. */
  readonly hidden: number;
}

/**
 * Dependency of a block j on an earlier block i (FFN Fusion, arXiv 2503.18908): the cosine distance between j's
 * *contribution* (its output without the residual, what it adds to the stream) in the whole model and its
 * contribution in the model without block i. The mean over tokens is taken of the distance of each token.
 *
 * Two zero contributions are equal, distance 0; a zero and another one have distance 1.
 */
export class BlockDependencyAccumulator {
  readonly hidden: number;
  #tokens = 0;
  #sum = 0;

  /** @throws MetricError `METRIC_OPTIONS` where `hidden` is not a positive whole number. */
  constructor(options: BlockDependencyOptions) {
    if (!Number.isSafeInteger(options.hidden) || options.hidden < 1) {
      throw new MetricError('METRIC_OPTIONS', 'hidden is not a size this can work with.', {
        expected: 'a whole number, at least 1',
        found: String(options.hidden),
      });
    }
    this.hidden = options.hidden;
  }

  /** Tokens that have counted so far. */
  get tokens(): number {
    return this.#tokens;
  }

  /**
   * Takes in one batch.
   *
   * @param contributionWith `[tokens, hidden]`: what block j adds in the whole model.
   * @param contributionWithout `[tokens, hidden]`: what it adds, for the same tokens, without block i.
   * @throws MetricError `ACTIVATION_SHAPE`, `ACTIVATION_NOT_FINITE`; the accumulator is then as it was before.
   */
  add(
    contributionWith: Float32Array,
    contributionWithout: Float32Array,
    options: { readonly mask?: TokenMask | undefined } = {},
  ): this {
    const { hidden } = this;
    const { mask } = options;
    const names = (index: number) => `the contribution ${index === 0 ? 'with' : 'without'} the earlier block`;
    const tokens = checkActivations([contributionWith, contributionWithout], names, hidden, mask);
    for (let token = 0; token < tokens; token++) {
      if (!isKept(mask, token)) continue;
      let product = 0;
      let squaredWith = 0;
      let squaredWithout = 0;
      for (let at = token * hidden; at < (token + 1) * hidden; at++) {
        const a = contributionWith[at]!;
        const b = contributionWithout[at]!;
        product += a * b;
        squaredWith += a * a;
        squaredWithout += b * b;
      }
      this.#sum += 1 - cosineOf(product, squaredWith, squaredWithout);
      this.#tokens++;
    }
    return this;
  }

  /** Adds what another accumulator has seen. */
  merge(other: BlockDependencyAccumulator): this {
    this.#sum += other.#sum;
    this.#tokens += other.#tokens;
    return this;
  }

  /**
   * The dependency over all tokens so far; more may be added afterwards.
   *
   * @throws MetricError `NO_TOKENS` where no token has counted.
   */
  finish(): BlockDependency {
    if (this.#tokens === 0) {
      throw new MetricError('NO_TOKENS', 'No block dependency can be computed: no token has counted.', {
        hint: 'Give more text, or a mask that leaves some tokens.',
      });
    }
    return { distance: this.#sum / this.#tokens, tokens: this.#tokens };
  }
}

/**
 * `BlockDependencyAccumulator` for contributions that are at hand all at once.
 *
 * @param contributionWith `[tokens, hidden]`, row-major.
 * @param contributionWithout `[tokens, hidden]`, row-major.
 * @throws MetricError `METRIC_OPTIONS`, `ACTIVATION_SHAPE`, `ACTIVATION_NOT_FINITE`, `NO_TOKENS`
 */
export function blockDependency(
  contributionWith: Float32Array,
  contributionWithout: Float32Array,
  options: BlockDependencyOptions & { readonly mask?: TokenMask | undefined },
): BlockDependency {
  return new BlockDependencyAccumulator(options)
    .add(contributionWith, contributionWithout, { mask: options.mask })
    .finish();
}
