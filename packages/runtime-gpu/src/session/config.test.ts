import { availableParallelism } from 'node:os';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { configEntries } from './config.js';

const STOP = 'session.force_spinning_stop';

describe('configuration entries', () => {
  it('let threads rest between runs where they take all processors', () => {
    const all = availableParallelism();
    expect(configEntries({})[STOP]).toBe('1');
    expect(configEntries({ threads: 0 })[STOP]).toBe('1');
    expect(configEntries({ threads: all })[STOP]).toBe('1');
    expect(configEntries({ threads: all + 1 })[STOP]).toBe('1');
    if (all > 1) expect(configEntries({ threads: all - 1 })).toEqual({});
  });

  it("give way to the caller's own", () => {
    expect(configEntries({ config: { [STOP]: '0', other: 'x' } })).toEqual({ [STOP]: '0', other: 'x' });
  });

  it('say where external data lies, from the root', () => {
    const entries = configEntries({ externalDataFolder: 'models' });
    expect(entries['session.model_external_initializers_file_folder_path']).toBe(path.resolve('models'));
  });
});
