import { describe, expect, it } from 'vitest';
import { UsageError } from '../errors.js';
import { datasheetNames, datasheetProfile } from './datasheets.js';
import { deviceOf, parseProfile } from './profile.js';
import { roundMachine } from './testing/instances.js';

function errorOf(run: () => unknown): UsageError {
  try {
    run();
  } catch (error) {
    if (error instanceof UsageError) return error;
    throw error;
  }
  throw new Error('nothing was thrown');
}

const machine = roundMachine(2);
const changed = (change: object) => ({ ...machine, ...change });
const device = (change: object) => changed({ devices: [{ ...machine.devices[0], ...change }] });

it('reads what it wrote, as text and as a value', () => {
  expect(parseProfile(JSON.stringify(machine))).toEqual(machine);
  expect(parseProfile(machine)).toEqual(machine);
});

it('refuses what is no profile, with the place', () => {
  expect(errorOf(() => parseProfile('{')).code).toBe('PROFILE_NOT_JSON');
  expect(errorOf(() => parseProfile(changed({ version: 2 }))).code).toBe('PROFILE_VERSION');
  for (const [document, place] of [
    [7, 'not what a machine profile'],
    [changed({ extra: 1 }), 'not what a machine profile'],
    [device({ launchSeconds: -1 }), 'devices[0].launchSeconds'],
    [device({ memoryBytesPerSecond: 0 }), 'devices[0].memoryBytesPerSecond'],
    [device({ peakFlops: { float8: 1 } }), 'devices[0].peakFlops'],
    [
      device({
        memoryEfficiency: [
          { bytes: 5, share: 1 },
          { bytes: 5, share: 0.5 },
        ],
      }),
      'devices[0].memoryEfficiency[1].bytes',
    ],
    [
      device({
        elementwise: [
          { bytes: 5, seconds: 1 },
          { bytes: 4, seconds: 1 },
        ],
      }),
      'devices[0].elementwise[1].bytes',
    ],
    [
      device({
        operators: {
          split: [
            { bytes: 5, seconds: 1 },
            { bytes: 5, seconds: 1 },
          ],
        },
      }),
      'devices[0].operators.split[1].bytes',
    ],
    [device({ operators: { other: [] } }), 'devices[0].operators'],
    [device({ attention: [{ type: 'float32', tokens: 0 }] }), 'devices[0].attention[0].tokens'],
    [changed({ devices: [machine.devices[0], machine.devices[0]] }), 'devices[1].id'],
    [changed({ links: [{ ...machine.links[0], between: ['0', '7'] }] }), 'links[0].between[1]'],
    [changed({ links: [{ ...machine.links[0], between: ['0', '0'] }] }), 'links[0].between'],
  ] as const) {
    const error = errorOf(() => parseProfile(document));
    expect(error.code).toBe('PROFILE_SCHEMA');
    expect(error.message).toContain(place);
  }
});

it('names the devices there are where one is missing', () => {
  expect(deviceOf(machine, '1').id).toBe('1');
  const error = errorOf(() => deviceOf(machine, '9'));
  expect([error.code, error.expected]).toEqual(['PROFILE_NO_DEVICE', 'one of 0, 1']);
});

describe('datasheets', () => {
  it('are profiles with sources', () => {
    for (const name of datasheetNames()) {
      const profile = datasheetProfile(name, 2);
      expect(parseProfile(JSON.parse(JSON.stringify(profile)))).toEqual(profile);
      expect(profile.devices.map(({ id }) => id)).toEqual(['0', '1']);
      expect(profile.sources?.length).toBeGreaterThan(1);
    }
  });

  it('are copies', () => {
    const profile = datasheetProfile('a100-nvlink', 1);
    profile.devices[0]!.memoryEfficiency[0]!.share = 0.1;
    expect(datasheetProfile('a100-nvlink', 1).devices[0]!.memoryEfficiency[0]!.share).toBe(0.83);
  });

  it('refuse what there is no sheet of', () => {
    expect(errorOf(() => datasheetProfile('toString', 1)).code).toBe('DATASHEET_UNKNOWN');
    expect(errorOf(() => datasheetProfile('epyc-9654', 3)).code).toBe('DATASHEET_COUNT');
    expect(errorOf(() => datasheetProfile('epyc-9654', 0)).code).toBe('DATASHEET_COUNT');
  });
});
