import type { Script } from './requests.ts';

/** Plays at most; each is a connection or two. */
const MAX_TRIES = 300;

/** A shorter script that still fails: written at once if that will do, then spans left out, halving. `fails` says whether a script does. */
export const shrink = async (script: Script, fails: (script: Script) => Promise<boolean>): Promise<Script> => {
  let tries = 0;
  const still = async (candidate: Script): Promise<boolean> => tries++ < MAX_TRIES && (await fails(candidate));
  if (!(await still(script))) return script;
  const whole: Script = { writes: [script.writes.join('')], fin: script.fin };
  if (!(await still(whole))) return script;
  let text = whole.writes[0]!;
  for (let span = text.length >> 1; span > 0; span >>= 1) {
    for (let at = 0; at < text.length && tries < MAX_TRIES; ) {
      const without = text.slice(0, at) + text.slice(at + span);
      if (await still({ writes: [without], fin: script.fin })) text = without;
      else at += span;
    }
  }
  return { writes: [text], fin: script.fin };
};
