import { describe, expect, it } from 'vitest';
import { cqil } from './test/run.js';

describe('the command line', () => {
  it('shows its commands when asked', async () => {
    const { code, stdout, stderr } = await cqil('--help');
    expect(code).toBe(0);
    expect(stdout).toContain('cqil import <gguf>');
    expect(stderr).toBe('');
  });

  it('shows the options of a command', async () => {
    const { code, stdout } = await cqil('import', '--help');
    expect(code).toBe(0);
    expect(stdout).toContain('--dtype');
  });

  it('tells its version', async () => {
    const { code, stdout } = await cqil('--version');
    expect(code).toBe(0);
    expect(stdout).toMatch(/^\d+\.\d+\.\d+/);
  });

  it('asks for a command', async () => {
    const { code, stdout, stderr } = await cqil();
    expect(code).toBe(2);
    expect(stdout).toBe('');
    expect(stderr).toContain('cqil <command>');
  });

  it('suggests the command that was meant', async () => {
    const { code, stderr } = await cqil('improt', 'x.gguf');
    expect(code).toBe(2);
    expect(stderr).toMatch(/COMMAND_UNKNOWN: .*improt[\s\S]*did you mean cqil import\?/);
  });

  it('suggests the option that was meant', async () => {
    const { code, stderr } = await cqil('import', 'x.gguf', '--out', 'y', '--dtpye', 'fp32');
    expect(code).toBe(2);
    expect(stderr).toMatch(/OPTION_UNKNOWN: Unknown argument: dtpye[\s\S]*did you mean --dtype\?/);
  });

  it.each([
    ['a missing argument', ['import']],
    ['a missing option', ['import', 'x.gguf']],
    ['a value that is no choice', ['import', 'x.gguf', '--out', 'y', '--dtype', 'q4']],
    ['an option given twice', ['import', 'x.gguf', '--out', 'y', '--out', 'z']],
    ['an option without its value', ['import', 'x.gguf', '--out']],
    ['an argument too many', ['import', 'x.gguf', 'y.gguf', '--out', 'z']],
  ])('refuses %s', async (_, argv) => {
    const { code, stdout, stderr } = await cqil(...argv);
    expect(code).toBe(2);
    expect(stdout).toBe('');
    expect(stderr).toMatch(/^[A-Z]+_[A-Z]+: /);
    expect(stderr).not.toContain('    at ');
  });

  it('says what is wrong with an option, wholly', async () => {
    const { code, stdout } = await cqil('plan', 'x', '--group-size', 'two', '--out', 'y', '--json');
    expect(code).toBe(2);
    expect(JSON.parse(stdout)).toEqual({
      error: {
        code: 'OPTION_INVALID',
        message: '--group-size is not a number it can use.',
        expected: 'a whole number of at least 2',
        found: '"two"',
        hint: 'write it as --group-size 2',
      },
    });
  });

  it('prints one JSON document about a failure with --json', async () => {
    const { code, stdout } = await cqil('nonsense', '--json');
    expect(code).toBe(2);
    expect(JSON.parse(stdout)).toMatchObject({ error: { code: 'COMMAND_UNKNOWN', found: 'nonsense' } });
  });
});
