import type { Running } from '../src/app.ts';
import { callServer } from './harness.ts';

/** What a browser got for one address. */
export interface Page {
  url: string;
  status: number;
  headers: Record<string, string>;
  text: string;
  body: any;
}

/** A browser as far as a sign-in needs one: cookies by origin, redirects, and nothing else. Ours is asked without a socket. */
export class Browser {
  readonly cookies = new Map<string, Map<string, string>>();
  /** Every Set-Cookie line it was sent. */
  readonly set: string[] = [];
  private readonly server: Running;

  constructor(server: Running) {
    this.server = server;
  }

  /** One request; a redirect is not followed. */
  async get(url: string): Promise<Page> {
    const { origin, pathname, search } = new URL(url);
    const cookie = [...(this.cookies.get(origin) ?? [])]
      .map(([name, value]) => `${name}=${value}`)
      .join('; ');
    const sent: Record<string, string> = cookie ? { cookie } : {};
    const ours = origin === new URL(this.server.app.config.publicUrl).origin;
    if (ours) {
      const reply = await callServer(this.server, 'GET', pathname + search, { headers: sent });
      this.keep(origin, [reply.headers['set-cookie'] ?? []].flat().map(String));
      const headers = Object.fromEntries(
        Object.entries(reply.headers).map(([name, value]) => [name, String(value)]),
      );
      return { url, status: reply.status, headers, text: reply.text, body: reply.body };
    }
    const reply = await fetch(url, { headers: sent, redirect: 'manual' });
    this.keep(origin, reply.headers.getSetCookie());
    const text = await reply.text();
    return { url, status: reply.status, headers: Object.fromEntries(reply.headers), text, body: undefined };
  }

  /** Follows redirects to a page that is none, or until one leads to an address that begins with `until`; that one is not asked for. */
  async go(url: string, until?: string): Promise<Page> {
    let page = await this.get(url);
    for (let hops = 0; page.headers.location; hops++) {
      const next = new URL(page.headers.location, page.url).href;
      if (hops > 20) throw new Error(`too many redirects, the last to ${next}`);
      if (until && next.startsWith(until)) return { ...page, url: next };
      page = await this.get(next);
    }
    return page;
  }

  private keep(origin: string, lines: string[]): void {
    const jar = this.cookies.get(origin) ?? new Map<string, string>();
    this.cookies.set(origin, jar);
    for (const line of lines) {
      this.set.push(line);
      const [pair = ''] = line.split(';');
      const at = pair.indexOf('=');
      const [name, value] = [pair.slice(0, at), pair.slice(at + 1)];
      if (value === '' || /max-age=0|expires=thu, 01 jan 1970/i.test(line)) jar.delete(name);
      else jar.set(name, value);
    }
  }
}
