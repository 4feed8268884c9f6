import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import type { GroupForm, MachineProfile, ModelShape } from '@cqil/core';
import type { PredictedLatency } from '@cqil/planner';
import type { CommandContext } from '../command.js';
import { writeFileAtomic } from '../files.js';
import { readJson } from '../model.js';
import { refusal } from '../options.js';

/** In the place of a profile's file: what this machine does is measured, once. */
export const MEASURE = 'measure';

export interface LatencyOptions {
  /** A machine profile's file, or `measure`. */
  readonly profile: string | undefined;
  /** Devices that branches run on; one session where there are none. */
  readonly devices: readonly string[] | undefined;
  readonly form: GroupForm;
}

/**
 * What predicts the plans of a model, by a profile that is given or measured; undefined without one.
 *
 * @throws UsageError `OPTION_INVALID` for devices without a profile, `PROFILE_NO_DEVICE`, …
 */
export async function predictedLatency(
  shape: ModelShape,
  { profile: named, devices = [], form }: LatencyOptions,
  context: CommandContext,
): Promise<PredictedLatency | undefined> {
  if (named === undefined) {
    if (devices.length === 0) return undefined;
    throw refusal('OPTION_INVALID', '--devices says nothing without a profile.', {
      expected: '--profile FILE, or --profile measure',
      found: 'no --profile',
      hint: 'cqil profile <model> --devices cpu:0,cpu:1 --out cpu.json',
    });
  }
  const { parseProfile, relativeLatency } = await import('@cqil/core');
  const profile =
    named === MEASURE ? await measured(shape, devices, context) : parseProfile(await readJson(named));
  const latency = relativeLatency({ shape, profile, form, branches: devices });
  // That the devices are there is said before anything is measured.
  latency.change({ layers: [0, 1], bypass: 'full' });
  const where = devices.length === 0 ? 'one session' : `branches on ${devices.join(', ')}`;
  const hash = createHash('sha256').update(JSON.stringify([shape, profile, devices, form]));
  return {
    ...latency,
    described: `the latency model, from the profile ${profile.name}; ${where}, groups as ${form}`,
    sha256: hash.digest('hex'),
  };
}

/** This machine's profile for a model's kernels, from where such are kept or measured now. */
async function measured(
  shape: ModelShape,
  devices: readonly string[],
  { signal, onProgress, note }: CommandContext,
): Promise<MachineProfile> {
  const [{ parseProfile }, { machine, measurePartition, measureProfile, workOf }] = await Promise.all([
    import('@cqil/core'),
    import('@cqil/runtime-gpu'),
  ]);
  const work = workOf(shape);
  const key = createHash('sha256').update(JSON.stringify([1, machine(), work, devices]));
  const file = join(profileFolder(), `${key.digest('hex').slice(0, 16)}.json`);
  const kept = await readFile(file, 'utf8').catch(() => undefined);
  if (kept !== undefined) {
    try {
      return parseProfile(kept);
    } catch {
      // Of another release, or half of one: measured anew.
    }
  }
  const options = { ...work, secondsEach: 0.2, signal, onProgress };
  const profile =
    devices.length === 0 ? await measureProfile(options) : await measurePartition(devices, options);
  await writeFileAtomic(file, `${JSON.stringify(profile)}\n`);
  note(`Measured this machine; the profile is kept in ${file}.`);
  return profile;
}

/** Where profiles of this machine are kept. */
export function profileFolder(
  env: Readonly<Record<string, string | undefined>> = process.env,
  platform = process.platform,
): string {
  const local = platform === 'win32' ? (env.LOCALAPPDATA ?? join(homedir(), 'AppData', 'Local')) : undefined;
  const usual = platform === 'darwin' ? join(homedir(), 'Library', 'Caches') : join(homedir(), '.cache');
  return join(env.XDG_CACHE_HOME || local || usual, 'cqil', 'profiles');
}
