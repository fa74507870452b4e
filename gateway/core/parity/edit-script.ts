/** Two equal elements, by index. */
export type Kept = { readonly a: number; readonly b: number };

/** Above this many edits the arrays have little in common, and the trace (edits² / 2 integers) would grow for nothing. */
const MAX_EDITS = 600;

/**
 * Myers' greedy O((n+m)·d) longest common subsequence of two lists of interned elements
 * (E. Myers, "An O(ND) Difference Algorithm and Its Variations", 1986).
 * @returns the kept pairs in order, or null when more than `maxEdits` insertions and deletions are needed.
 */
export const keptPairs = (a: readonly number[], b: readonly number[], maxEdits: number = MAX_EDITS): Kept[] | null => {
  const [n, m] = [a.length, b.length];
  const limit = Math.min(n + m, maxEdits);
  const offset = limit + 1;
  const furthest = new Int32Array(2 * limit + 3);
  const trace: Int32Array[] = [];
  for (let d = 0; d <= limit; d++) {
    for (let k = -d; k <= d; k += 2) {
      const down = k === -d || (k !== d && furthest[offset + k - 1]! < furthest[offset + k + 1]!);
      let x = down ? furthest[offset + k + 1]! : furthest[offset + k - 1]! + 1;
      while (x < n && x - k < m && a[x] === b[x - k]) x++;
      furthest[offset + k] = x;
      if (x >= n && x - k >= m) return walkBack(a, b, trace, d);
    }
    trace.push(furthest.slice(offset - d, offset + d + 1));
  }
  return null;
};

/** `trace[d]` holds the furthest x of diagonals -d..d after d edits. */
const walkBack = (a: readonly number[], b: readonly number[], trace: readonly Int32Array[], edits: number): Kept[] => {
  const pairs: Kept[] = [];
  let [x, y] = [a.length, b.length];
  for (let d = edits; d > 0; d--) {
    const before = trace[d - 1]!;
    const at = (k: number): number => (k < -(d - 1) || k > d - 1 ? -1 : before[k + d - 1]!);
    const k = x - y;
    const down = k === -d || (k !== d && at(k - 1) < at(k + 1));
    const fromX = down ? at(k + 1) : at(k - 1);
    const fromY = fromX - (down ? k + 1 : k - 1);
    const startX = down ? fromX : fromX + 1;
    while (x > startX) pairs.push({ a: --x, b: --y });
    [x, y] = [fromX, fromY];
  }
  while (x > 0 && y > 0) pairs.push({ a: --x, b: --y });
  return pairs.reverse();
};
