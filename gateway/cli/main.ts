import { expectEnding } from '../ending.ts';

// a gateway may be told to end while it is still being loaded; whatever else runs ends by the signal
if (process.argv[2] === 'run') expectEnding();
await import('./program.ts');
