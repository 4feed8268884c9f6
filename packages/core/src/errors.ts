/** Everything this project throws on purpose. `code` is stable; the message says what to do. */
export interface CqilErrorDetails {
  /** What would have been right, in words a user can act on. */
  readonly expected?: string;
  /** What was there instead. */
  readonly found?: string;
  /** What the user can do next. */
  readonly hint?: string;
  readonly cause?: unknown;
}

/**
 * The base of all errors of this project.
 *
 * `code` is `SCREAMING_SNAKE_CASE` and does not change between versions; `expected`, `found` and `hint`
 * carry the parts of the message for programs.
 */
export class CqilError extends Error {
  override readonly name: string = 'CqilError';
  readonly code: string;
  readonly expected: string | undefined;
  readonly found: string | undefined;
  readonly hint: string | undefined;

  constructor(code: string, message: string, details: CqilErrorDetails = {}) {
    const parts = [message];
    if (details.expected !== undefined) parts.push(`expected: ${details.expected}`);
    if (details.found !== undefined) parts.push(`found: ${details.found}`);
    if (details.hint !== undefined) parts.push(`what to do: ${details.hint}`);
    super(parts.join('\n  '), details.cause === undefined ? undefined : { cause: details.cause });
    this.code = code;
    this.expected = details.expected;
    this.found = details.found;
    this.hint = details.hint;
  }
}

/** What a `PlanError` carries on top: where in the document the fault lies. */
export interface PlanErrorDetails extends CqilErrorDetails {
  /** The offending field: `groups[1].layers[0]`; for a parameter of a planning function, its name. */
  readonly path?: string;
}

/** A plan document that is not well-formed, or does not fit what it is used on. */
export class PlanError extends CqilError {
  override readonly name = 'PlanError';
  /** The offending field (`groups[1].layers[0]`), or undefined where the fault has no single place. */
  readonly path: string | undefined;

  constructor(code: string, message: string, details: PlanErrorDetails = {}) {
    super(
      code,
      details.path === undefined || details.path === '' ? message : `${details.path}: ${message}`,
      details,
    );
    this.path = details.path;
  }
}

/** Activations or matrices that no metric can be computed from: wrong shape, not finite, none at all. */
export class MetricError extends CqilError {
  override readonly name = 'MetricError';
}

/** A model file or folder that cannot be read: truncated, corrupt, unsafe or of an unsupported kind. */
export class ModelFormatError extends CqilError {
  override readonly name = 'ModelFormatError';
}

/** A graph that was read well but whose structure is not that of a decoder this project can rewrite. */
export class AnatomyError extends CqilError {
  override readonly name = 'AnatomyError';
}

/** A check that was made and failed: parity, structure, shapes. */
export class VerificationError extends CqilError {
  override readonly name = 'VerificationError';
}

/** A wrong option, argument or input from the user that is none of the above. */
export class UsageError extends CqilError {
  override readonly name = 'UsageError';
}

/** Something the machine, the network or the file system refused. */
export class EnvironmentError extends CqilError {
  override readonly name = 'EnvironmentError';
}
