import { mkdir, open, rename, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Readable } from 'node:stream';

/** Files of ours by name. A local directory; a store of objects can stand behind the same words. */
export interface Blobs {
  /**
   * Stores bytes as they come. They are there to be read when all of them are on the disk, and not before.
   * @returns how many
   * @throws BlobTooLarge, or what the bytes throw; then nothing is stored
   */
  write(name: string, bytes: AsyncIterable<Uint8Array>, maxBytes: number): Promise<number>;
  /** Size in bytes; undefined when there is none of this name. */
  size(name: string): Promise<number | undefined>;
  /** The bytes from `start` to `end`, both included. @throws when there are none of this name */
  read(name: string, start: number, end: number): Promise<Readable>;
  /** Also removes what an interrupted `write` left. There may be none. */
  remove(name: string): Promise<void>;
  /** Removes all whose names begin with these parts. There may be none. */
  removeAll(parts: string): Promise<void>;
}

export class BlobTooLarge extends Error {
  override name = 'BlobTooLarge';
}

/** Names are made by us: parts of lower-case letters, digits and `. _ -` that begin with a letter or digit. */
const namePattern = /^[a-z0-9][a-z0-9._-]*(?:\/[a-z0-9][a-z0-9._-]*)*$/;

export function openBlobs(directory: string): Blobs {
  const pathOf = (name: string): string => {
    if (!namePattern.test(name)) throw new Error(`not a name of a blob: ${name}`);
    return join(directory, name);
  };
  return {
    write: async (name, bytes, maxBytes) => {
      const path = pathOf(name);
      const part = `${path}.part`;
      await mkdir(dirname(path), { recursive: true, mode: 0o700 });
      const file = await open(part, 'w', 0o600);
      let size = 0;
      try {
        for await (const piece of bytes) {
          size += piece.byteLength;
          if (size > maxBytes) throw new BlobTooLarge(`more than ${maxBytes} bytes`);
          await file.write(piece);
        }
        await file.sync();
      } catch (error) {
        await file.close();
        await rm(part, { force: true });
        throw error;
      }
      await file.close();
      await rename(part, path);
      return size;
    },
    size: async (name) => {
      try {
        return (await stat(pathOf(name))).size;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
        throw error;
      }
    },
    read: async (name, start, end) => {
      // Opened first: a file that is removed meanwhile is read to its end.
      const file = await open(pathOf(name), 'r');
      return file.createReadStream({ start, end, autoClose: true });
    },
    remove: async (name) => {
      const path = pathOf(name);
      await rm(path, { force: true });
      await rm(`${path}.part`, { force: true });
    },
    removeAll: async (parts) => rm(pathOf(parts), { recursive: true, force: true }),
  };
}
