/** A report of how far a long piece of work has come. */
export interface Progress {
  /** What is being done, in two or three words: `reading weights`, `measuring layers`. */
  readonly phase: string;
  readonly done: number;
  readonly total: number;
  /** What `done` and `total` count: `bytes`, `tensors`, `tokens`. */
  readonly unit?: string;
}

export type OnProgress = (progress: Progress) => void;
