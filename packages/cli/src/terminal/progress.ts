import type { OnProgress, Progress } from '@cqil/core';
import { Presets, SingleBar } from 'cli-progress';
import prettyBytes from 'pretty-bytes';
import type { Sink } from './sink.js';

/** Between two lines about one phase where there is no terminal, in ms. */
const LINE_INTERVAL = 5_000;

export interface ProgressDisplay {
  readonly onProgress: OnProgress;
  /** Ends the bar in progress, so that text can follow. */
  stop(): void;
}

/** Bars on a terminal; elsewhere a line when a phase begins, at most one in five seconds, and one at its end. */
export function progressDisplay(sink: Sink, now: () => number = () => performance.now()): ProgressDisplay {
  return sink.isTTY === true ? bars(sink) : lines(sink, now);
}

function bars(sink: Sink): ProgressDisplay {
  let bar: SingleBar | undefined;
  let phase = '';
  const stop = (): void => {
    bar?.stop();
    bar = undefined;
    phase = '';
  };
  return {
    stop,
    onProgress(progress) {
      if (progress.phase !== phase) {
        stop();
        phase = progress.phase;
        bar = new SingleBar(
          {
            stream: sink as NodeJS.WritableStream,
            format: `{phase} {bar} {amount}`,
            hideCursor: false,
            etaBuffer: 50,
            barsize: 30,
            gracefulExit: false,
          },
          Presets.shades_classic,
        );
        bar.start(Math.max(progress.total, 1), progress.done, payload(progress));
      } else {
        bar?.setTotal(Math.max(progress.total, 1));
        bar?.update(progress.done, payload(progress));
      }
      if (isDone(progress)) stop();
    },
  };
}

function payload(progress: Progress): { phase: string; amount: string } {
  return { phase: progress.phase.padEnd(24), amount: amount(progress) };
}

function lines(sink: Sink, now: () => number): ProgressDisplay {
  let phase: string | undefined;
  let began = 0;
  let last = 0;
  return {
    stop() {
      phase = undefined;
    },
    onProgress(progress) {
      const time = now();
      const isNew = progress.phase !== phase;
      if (isNew) {
        phase = progress.phase;
        began = time;
      }
      if (isDone(progress)) {
        const seconds = ((time - began) / 1000).toFixed(1);
        sink.write(`${progress.phase}: ${amount(progress)}, done in ${seconds} s\n`);
        phase = undefined;
      } else if (isNew || time - last >= LINE_INTERVAL) {
        last = time;
        sink.write(`${progress.phase}: ${amount(progress)}\n`);
      }
    },
  };
}

function isDone({ done, total }: Progress): boolean {
  return total > 0 && done >= total;
}

function amount({ done, total, unit }: Progress): string {
  const known = total > 0;
  const share = known ? ` (${Math.floor((Math.min(done, total) / total) * 100)} %)` : '';
  if (unit === 'bytes')
    return known ? `${prettyBytes(done)} of ${prettyBytes(total)}${share}` : prettyBytes(done);
  const of = known ? ` of ${total}` : '';
  return `${Number.isInteger(done) ? done : done.toFixed(1)}${of}${unit === undefined ? '' : ` ${unit}`}${share}`;
}
