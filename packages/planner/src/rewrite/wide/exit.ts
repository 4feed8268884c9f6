import type { WideBranch } from './wide-branch.js';

/** All members' last matrices in one, behind their own inner parts. */
export async function oneExit(branch: WideBranch, name: string, members: string): Promise<string> {
  const inputs = branch.members.map(({ exit }) => exit.input);
  const inner = branch.options.emitter.concat(members, inputs, -1);
  return branch.refold(name, await branch.exit(name, inner));
}
