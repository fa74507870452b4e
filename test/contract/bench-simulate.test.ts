import { expect, it } from '@jest/globals';
import { run } from '../harness/processes.ts';

type Document = { name: string; figures: Record<string, number>; table: { what: string }[] };

const simulate = async (...flags: string[]): Promise<{ code: number | null; out: string; err: string }> => {
  const child = run('bench/run.ts', ['simulate', '--quick', ...flags]);
  const { code } = await child.exited;
  return { code, out: child.stdout.join('\n'), err: child.stderr.join('\n') };
};

it('the simulated gate keeps what its documentation says, with one seed as with another', async () => {
  const [first, other, wrong] = await Promise.all([
    simulate('--json'),
    simulate('--json', '--seed', '7', '--count', '50'),
    simulate('--seed', 'x'),
  ]);
  expect([first.code, other.code, wrong.code]).toEqual([0, 0, 2]);
  const { name, figures, table } = JSON.parse(first.out) as Document;
  expect(name).toBe('simulate');
  expect(figures).toMatchObject({ bad_services: 200, idle_moves: 0, idle_state_running: 1, faults_missed: 0, promoted_again: 0 });
  expect(figures.bad_promoted).toBeLessThanOrEqual(6);
  expect(figures.clean_promoted_at).toBeLessThanOrEqual(3_100);
  expect(figures.equal_rolled_back).toBe(0);
  expect(table.length).toBeGreaterThan(5);
  const more = (JSON.parse(other.out) as Document).figures;
  expect(more).toMatchObject({ seed: 7, bad_services: 50, idle_moves: 0, faults_missed: 0 });
  expect(more.beta).not.toBe(figures.beta);
}, 360_000);
