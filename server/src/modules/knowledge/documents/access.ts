import type { Ctx } from '#platform/context.ts';
import { forbidden } from '#platform/errors.ts';
import { recordDenial } from '#platform/facts/denials.ts';
import { isPermitted } from '#platform/permission.ts';
import type { Principals } from './permission-store.ts';
import type { Grant } from './schema.ts';
import type { DocumentOfPolicy, Guarded } from './store.ts';
import { targetOf } from './visible.ts';

/** What can be done to one document, and which grants are enough for it. */
const enough: Record<'read' | 'write' | 'delete' | 'reindex' | 'share', readonly Grant[]> = {
  read: ['read', 'write', 'delete', 'reindex', 'owner'],
  write: ['write', 'delete', 'owner'],
  delete: ['delete', 'owner'],
  reindex: ['reindex', 'owner'],
  share: ['owner'],
};
type Doing = keyof typeof enough;

/** Whose grants count: those of the person, its role and its key; also where an agent acts for the person. */
export function principalsOf({ actor, app }: Ctx): Principals {
  const bypass = app.config.AUTHZ_ADMIN_BYPASS_DOCUMENT_ACL && actor.role === 'admin';
  return {
    user: actor.identity_id ?? null,
    role: actor.role,
    api_key: actor.type === 'api_key' ? actor.credential : null,
    all: actor.type === 'system' || bypass,
    now: new Date(),
  };
}

const holds = (ctx: Ctx, document: Guarded, doing: Doing): boolean =>
  document.access === 'open' ||
  principalsOf(ctx).all ||
  document.grants.some((grant) => enough[doing].includes(grant));

/** True when the caller may know of the document: its policies let it, and it is open or something of it is granted. */
export const maySee = async (ctx: Ctx, document: DocumentOfPolicy & Guarded): Promise<boolean> =>
  holds(ctx, document, 'read') && (await isPermitted(ctx, 'documents:read', targetOf(document)));

/**
 * Refuses what no grant of a restricted document allows. What policy says is asked beside this.
 * @throws ApiError 403 AUTHZ_DENIED
 */
export function requireGrant(ctx: Ctx, document: DocumentOfPolicy & Guarded, doing: Doing): void {
  if (holds(ctx, document, doing)) return;
  recordDenial(ctx, `documents:${doing}`, targetOf(document), {
    policy_id: null,
    reason: 'document_permission',
  });
  throw forbidden(
    'AUTHZ_DENIED',
    `The document is restricted: ask for one of its permissions ${enough[doing].join(', ')}.`,
  );
}

/** Who gives and takes permissions of a document: its owners, and admins, or a document without an owner would be lost. */
export const maySeePermissions = async (ctx: Ctx, document: DocumentOfPolicy & Guarded): Promise<boolean> =>
  isAdmin(ctx) ? isPermitted(ctx, 'documents:share', targetOf(document)) : maySee(ctx, document);

export function requireOwner(ctx: Ctx, document: DocumentOfPolicy & Guarded): void {
  const owner = isAdmin(ctx) || document.grants.some((grant) => enough.share.includes(grant));
  if (owner) return;
  recordDenial(ctx, 'documents:share', targetOf(document), {
    policy_id: null,
    reason: 'document_permission',
  });
  throw forbidden('AUTHZ_DENIED', 'Only an owner of the document or an admin may do this.');
}

export const isAdmin = ({ actor }: Ctx): boolean => actor.role === 'admin' || actor.type === 'system';
