// Reads jest's JSON result: prints `PASSED FAILED`. Plain JavaScript, because .ci/run starts it on whatever Node the machine has.
import { readFileSync } from 'node:fs';

const [file, status] = process.argv.slice(2);
const result = JSON.parse(readFileSync(file, 'utf8'));
// A file that does not even load holds no failed test, yet it failed.
let failed = result.numFailedTests + result.numRuntimeErrorTestSuites;
const passed = result.numPassedTests;
// jest may fail for other reasons than a test: an open handle, a hook of the whole run, no test found.
if (failed === 0 && (status !== '0' || !result.success || passed === 0)) failed = 1;
process.stdout.write(`${passed} ${failed}\n`);
