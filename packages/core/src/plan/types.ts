/**
 * How far attention outputs are passed on inside a group: an FFN reads the group's input, its own layer's
 * attention output and those of up to `bypass` layers before it (bypass distance D, CQIL, arXiv 2404.06709).
 * `'full'`: the attention outputs of all layers of the group, later ones too (Layer Parallelism, arXiv 2502.02790).
 */
export type Bypass = number | 'full';

/** How a group is written into a graph. `branches`: one branch per layer, joined by one sum. */
export type GroupForm = 'branches' | 'wide' | 'packed';

/** A run of neighbouring layers (0-based ids, ascending, at least two) that read the same input. */
export interface PlanGroup {
  readonly layers: readonly number[];
  readonly bypass: Bypass;
  /** `branches` when absent. */
  readonly form?: GroupForm;
}

/** Where a plan came from. Nothing in it changes what the plan means. */
export interface PlanProvenance {
  readonly tool?: string;
  readonly created?: string;
  readonly model?: string;
  readonly modelHash?: string;
  readonly method?: string;
  readonly [key: string]: unknown;
}

/** Which layers of a model run at the same time. Layers in no group run one after the other, as before. */
export interface Plan {
  readonly version: 1;
  /** Number of decoder layers of the model the plan is for. */
  readonly layers: number;
  /** Ascending by first layer, without overlap. */
  readonly groups: readonly PlanGroup[];
  readonly provenance?: PlanProvenance;
}
