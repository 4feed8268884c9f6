import type { OnProgress, Plan } from '@cqil/core';
import type { SessionOptions } from '@cqil/runtime-gpu';
import type { MapRole, MatrixReplacement } from '../linear/index.js';
import type { Model } from '../onnx/index.js';

export interface RecoverOptions {
  /** Token ids to fit on, `[windows][tokens]`, all of one length. */
  readonly calibration: readonly (readonly number[])[];
  /** Token ids that λ is chosen by and that decide what is kept; none of them occurs in `calibration`. */
  readonly development: readonly (readonly number[])[];
  /**
   * Layers of the plan's groups that do not run at all: for models with layers left out, which are repaired in the same
   * way to be compared with. None when absent.
   */
  readonly skipped?: readonly number[];
  /** Which matrices may be refitted; all but `o` when absent. */
  readonly roles?: readonly MapRole[];
  /**
   * Tokens left out at the start of each window, where decoders put activations of another scale (massive
   * activations, arXiv 2402.17762); 1 when absent.
   */
  readonly skipFirst?: number;
  /** Tokens run at once; 4,096 when absent. */
  readonly batchTokens?: number;
  /** Refits of groups that an earlier, stopped run made; see `onGroup`. */
  readonly known?: readonly GroupRecovery[];
  /** Told after each group, so that a stopped run can be gone on with. */
  readonly onGroup?: (group: GroupRecovery) => void | Promise<void>;
  readonly session?: SessionOptions;
  readonly signal?: AbortSignal;
  readonly onProgress?: OnProgress;
}

/** What was tried on some matrices at once. */
export interface RecoveryStep {
  readonly layers: readonly number[];
  readonly matrix: MapRole;
  /** Relative to the mean of the Gram matrix's diagonal. */
  readonly lambda?: number;
  /**
   * Error on development text before and after, over the size of what is to be met: for `qkv` and `gate-up`
   * Σ‖target − output‖² / Σ‖target‖², for `o` and `down` the same of what the group adds to the stream, each token
   * weighted by 1 / ‖stream‖².
   */
  readonly before: number;
  readonly after: number;
  readonly kept: boolean;
  /** Why not, where it is not. */
  readonly reason?: string;
}

/** What recovery did to one group. */
export interface GroupRecovery {
  readonly layers: readonly number[];
  readonly steps: readonly RecoveryStep[];
  readonly replacements: readonly MatrixReplacement[];
}

export interface RecoverResult {
  /** The original with the refitted matrices, not yet grouped: what the plan is to be applied to. */
  readonly model: Model;
  readonly plan: Plan;
  readonly groups: readonly GroupRecovery[];
}
