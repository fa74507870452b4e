/**
 * Preloaded into every part: when the stack dies, even by SIGKILL, its channel closes and the part ends in good order instead of living on.
 * A part that has a `disconnect` handler of its own simply hears it twice.
 */
process.on('disconnect', () => process.kill(process.pid, 'SIGTERM'));
// the channel alone must not keep a part alive
process.channel?.unref();
