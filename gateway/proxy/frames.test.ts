import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { closeFrame, FrameTracker } from './frames.ts';

/** One frame with a payload of zeros. */
const frame = (opcode: number, length: number, masked: boolean, wide: 0 | 2 | 8 = length < 126 ? 0 : length < 65_536 ? 2 : 8): Buffer => {
  const size = Buffer.alloc(wide);
  if (wide === 2) size.writeUInt16BE(length);
  if (wide === 8) size.writeBigUInt64BE(BigInt(length));
  const short = wide === 0 ? length : wide === 2 ? 126 : 127;
  return Buffer.concat([
    Buffer.from([0x80 | opcode, (masked ? 0x80 : 0) | short]),
    size,
    masked ? Buffer.from([1, 2, 3, 4]) : Buffer.alloc(0),
    Buffer.alloc(length),
  ]);
};

const anyFrame = fc
  .tuple(fc.constantFrom(0, 1, 2, 9, 10), fc.oneof(fc.nat(200), fc.nat(70_000)), fc.boolean())
  .map(([opcode, length, masked]) => frame(opcode, length, masked));

describe('FrameTracker', () => {
  it('is at a boundary after each frame and nowhere else, however the bytes are cut', () => {
    fc.assert(
      fc.property(fc.array(anyFrame, { minLength: 1, maxLength: 6 }), fc.array(fc.nat(), { maxLength: 12 }), (frames, cuts) => {
        const bytes = Buffer.concat(frames);
        const ends = new Set<number>([0]);
        let end = 0;
        for (const one of frames) {
          end += one.length;
          ends.add(end);
        }
        const points = [...new Set([...cuts.map((cut) => cut % bytes.length), 0, bytes.length])].sort((a, b) => a - b);
        const tracker = new FrameTracker();
        for (let i = 1; i < points.length; i++) {
          const piece = bytes.subarray(points[i - 1], points[i]);
          expect(tracker.read(piece)).toBe(piece.length);
          expect(tracker.atBoundary).toBe(ends.has(points[i]!));
        }
        expect(tracker.closed).toBe(false);
      }),
    );
  });

  it('stops at each boundary when asked to', () => {
    fc.assert(
      fc.property(fc.array(anyFrame, { minLength: 1, maxLength: 6 }), (frames) => {
        let bytes = Buffer.concat(frames);
        const tracker = new FrameTracker();
        for (const one of frames) {
          expect(tracker.read(bytes, true)).toBe(one.length);
          bytes = bytes.subarray(one.length);
        }
        expect(bytes).toHaveLength(0);
      }),
    );
  });

  it('sees a Close frame when all of it has come', () => {
    const tracker = new FrameTracker();
    const bytes = closeFrame(1001, 'bye', true);
    tracker.read(bytes.subarray(0, -1));
    expect([tracker.closed, tracker.atBoundary]).toEqual([false, false]);
    tracker.read(bytes.subarray(-1));
    expect([tracker.closed, tracker.atBoundary]).toEqual([true, true]);
  });

  it('takes lengths in a wider form than they need', () => {
    const tracker = new FrameTracker();
    for (const wide of [2, 8] as const) {
      tracker.read(frame(1, 5, true, wide));
      expect(tracker.atBoundary).toBe(true);
    }
  });

  it('never finds the end of a frame of 2^63 bytes', () => {
    const tracker = new FrameTracker();
    tracker.read(Buffer.from([0x82, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]));
    tracker.read(Buffer.alloc(1_000_000));
    expect(tracker.atBoundary).toBe(false);
  });
});

describe('closeFrame', () => {
  it('is plain from a server (RFC 6455 5.5.1)', () => {
    expect(closeFrame(1001, 'bye', false)).toEqual(Buffer.from([0x88, 5, 0x03, 0xe9, 0x62, 0x79, 0x65]));
  });
  it('is masked from a client (RFC 6455 5.3)', () => {
    const bytes = closeFrame(1012, 'bye', true);
    expect([...bytes.subarray(0, 2)]).toEqual([0x88, 0x85]);
    const payload = bytes.subarray(6).map((byte, i) => byte ^ bytes[2 + (i % 4)]!);
    expect(Buffer.from(payload)).toEqual(Buffer.from([0x03, 0xf4, 0x62, 0x79, 0x65]));
  });
});
