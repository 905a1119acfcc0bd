// Preloaded into the server by launch.mjs. File descriptor 3 is a pipe whose other end only the launcher holds:
// its end of file means the launcher is gone, even by SIGKILL, and the server then shuts down as if asked to.
import { Socket } from 'node:net';

// Worker threads and child processes inherit this preload but not the variable: their descriptor 3 is not ours.
if (process.env.MANUSHYA_LAUNCHER !== undefined) {
  delete process.env.MANUSHYA_LAUNCHER;
  const launcher = new Socket({ fd: 3, readable: true, writable: false });
  launcher.on('error', () => launcher.destroy());
  launcher.on('close', () => process.kill(process.pid, 'SIGTERM'));
  launcher.resume();
  launcher.unref();
}
