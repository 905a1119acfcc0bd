import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

/** Stands between the server and something it depends on, and takes that away when asked. */
export interface Outage {
  /** The same address, by way of the proxy. */
  url: string;
  /** Ends every connection and takes no new ones. */
  cut: () => Promise<void>;
  /** Ends every connection, but takes new ones at once. */
  reset: () => void;
  /** Takes connections and bytes, and answers nothing. */
  freeze: () => void;
  restore: () => Promise<void>;
  close: () => Promise<void>;
}

/** @param address of what stands behind; its host and port are replaced in `url` */
export async function createProxy(address: string): Promise<Outage> {
  const target = new URL(address);
  const sockets = new Set<Socket>();
  let frozen = false;
  const server = createServer((socket) => {
    const behind = connect(Number(target.port), target.hostname);
    for (const one of [socket, behind]) {
      sockets.add(one);
      one.on('error', () => one.destroy());
      one.on('close', () => {
        sockets.delete(one);
        socket.destroy();
        behind.destroy();
      });
    }
    socket.on('data', (bytes) => frozen || behind.write(bytes));
    behind.on('data', (bytes) => frozen || socket.write(bytes));
  });
  const listen = async (port: number) => {
    server.listen(port, '127.0.0.1');
    await once(server, 'listening');
  };
  await listen(0);
  const { port } = server.address() as AddressInfo;
  const reset = () => {
    for (const socket of sockets) socket.destroy();
  };
  const cut = async () => {
    if (!server.listening) return;
    const closed = new Promise((resolve) => server.close(resolve));
    reset();
    await closed;
  };
  return {
    url: Object.assign(new URL(address), { hostname: '127.0.0.1', port: String(port) }).href,
    cut,
    reset,
    freeze: () => {
      frozen = true;
    },
    restore: async () => {
      if (frozen) reset();
      frozen = false;
      if (!server.listening) await listen(port);
    },
    close: cut,
  };
}
