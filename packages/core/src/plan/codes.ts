/**
 * The codes of `PlanError`, with what each means. They do not change between versions.
 *
 * Checks run in this order, and the first fault found is the one reported.
 */
export const PLAN_ERROR_CODES = {
  PLAN_NOT_JSON: 'The text is not JSON.',
  PLAN_TOO_LARGE: 'The text is over 16 MiB, or the document is nested over 64 levels deep.',
  PLAN_VERSION: '`version` is a number, but no version this release can read.',
  PLAN_SCHEMA: 'A field is missing, unknown or of the wrong type.',
  PLAN_GROUP_TOO_SMALL: 'A group has fewer than two layers.',
  PLAN_LAYER_COUNT: 'The plan is for a model with another number of layers.',
  PLAN_OUT_OF_RANGE: 'A group names a layer the model does not have.',
  PLAN_NOT_NEIGHBOURS: "A group's layers are not a run of neighbours in ascending order.",
  PLAN_OVERLAP: 'Two groups share a layer.',
  PLAN_LAYER_NOT_GROUPABLE: 'A group holds a layer that cannot be grouped in this model.',
  PLAN_FORM_UNSUPPORTED: 'A group asks for a form that what reads the plan cannot write.',
  PLAN_WIDE_IMPOSSIBLE: 'A group of form "wide" is not one ordinary layer in this model.',
  PLAN_PACKED_IMPOSSIBLE: 'A group of form "packed" has nothing that can be made one in this model.',
  PLAN_PARAMETERS: 'A planning function was called with parameters that make no plan.',
  PLAN_NOT_EXPRESSIBLE: "The plan says what the authors' two keys cannot.",
} as const;

/** A code of `PlanError`. */
export type PlanErrorCode = keyof typeof PLAN_ERROR_CODES;
