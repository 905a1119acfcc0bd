import type { App, Origin } from '#platform/context.ts';
import type { Statement } from '#platform/db/sql.ts';
import { isDatabaseUnavailable } from '#platform/errors.ts';
import { perApp } from '#platform/per-app.ts';

/** That a credential was used: when, and from where. */
export interface Use {
  id: string;
  at: Date;
  ip?: string | undefined;
  user_agent?: string | undefined;
}

/** What of a cached credential tells when its use was last written, in milliseconds since 1970. */
export interface Used {
  usedMs: number;
}

/** How often the use of one credential is written at most. */
const everyMs = 60_000;
const limit = 10_000;

/**
 * Remembers uses of credentials and writes them in batches, off the request path: a request pays for a comparison. What
 * is remembered is bounded; in a flood some uses are noted at the next request only.
 * @param what names it in the log
 * @param write the statement that stores uses of one tenant; it must not wait for locks of several rows
 */
export function createLastUse(what: string, write: (tenant: string, uses: Use[]) => Statement) {
  const pendingOf = perApp(() => ({ byTenant: new Map<string, Map<string, Use>>(), size: 0 }));

  const remember = (app: App, tenant: string, use: Use): boolean => {
    const pending = pendingOf(app);
    let uses = pending.byTenant.get(tenant);
    if (!uses?.has(use.id)) {
      if (pending.size >= limit) return false;
      pending.size += 1;
    }
    if (!uses) {
      uses = new Map();
      pending.byTenant.set(tenant, uses);
    }
    uses.set(use.id, use);
    return true;
  };

  return {
    note: (app: App, tenant: string, id: string, credential: Used, from?: Origin): void => {
      const now = Date.now();
      if (now - credential.usedMs < everyMs) return;
      const user_agent = from?.headers['user-agent']?.slice(0, 400);
      if (remember(app, tenant, { id, at: new Date(now), ip: from?.ip, user_agent })) credential.usedMs = now;
    },
    /** Writes what was remembered. What can not be written for want of the database stays for the next time. */
    flush: async (app: App): Promise<void> => {
      const pending = pendingOf(app);
      const { byTenant } = pending;
      if (byTenant.size === 0) return;
      pending.byTenant = new Map();
      pending.size = 0;
      for (const [tenant, uses] of byTenant) {
        try {
          await app.database.tenant(tenant).run(write(tenant, [...uses.values()]));
        } catch (error) {
          if (isDatabaseUnavailable(error)) {
            for (const use of uses.values())
              if (!pending.byTenant.get(tenant)?.has(use.id)) remember(app, tenant, use);
          } else app.log.error({ err: error, tenant_id: tenant }, `last uses of ${what} can not be written`);
        }
      }
    },
  };
}
