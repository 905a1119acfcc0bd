import {
  BUILTIN,
  BUILTIN_ROLES,
  compilePolicies,
  decide,
  policyContext,
  RESOURCE_ACTIONS,
} from '#modules/access/policy/service.ts';
import type { Permission } from '#platform/context.ts';
import type { Route } from '#platform/http/route.ts';
import { scopesAllow } from '#platform/permission.ts';

const intro = `# Permissions: resources, actions, scopes and roles

Written from the code by \`npm run openapi\`, and compared with it by \`npm run check\`.

Every route says which permission it needs, \`resource:action\`; the contract repeats it (\`x-permission\`), and those asked beside it
(\`x-also-permissions\`), always or for some requests. The same words are the scopes of API keys and delegations, and what policies
read as \`resource\` and \`action\`. [Policies](policies.md) of a tenant are asked before the built-in ones below; a role of the
tenant's own may do nothing until one says so.

\`\`\`bash
curl -s http://localhost:8000/v1/openapi.json | grep -o '"x-permission":"memory:search"'
\`\`\`

\`\`\`text
"x-permission":"memory:search"
\`\`\`

- **all**: to everything of the tenant. **own**: to what belongs to the caller, for identities also to itself. Empty: not at all.
- **scope**: which of the broad scopes covers it, \`read\` or \`write\`. Where there is none only a scope that names the resource does
  (\`identity:delete\`, \`identity:write\`, \`identity:*\`), or \`admin\` and \`*\`, which cover everything. \`*\` stands for any resource or
  action; of what gives rights, \`*:create\` and its like cover nothing but reading.
- A permission without a route is asked for inside another one (\`identity:create\` where a credential makes an
  identity), or there is no route for it yet.
- What is changed is read first, and its answer shows it; documents, corpora and identities are read before they are deleted too, and
  what is in a corpus needs \`corpora:read\`. Such a route stands a second time, in brackets, where the other permission is. A key
  without it is answered 403, which names what is missing.
- Whoever makes a delegation for an agent (\`delegations:create\`) may do so for any agent, not only for its own.
- In a rule \`read\` stands for read, list and search, and \`write\` for all that changes something.
`;

const NONE = compilePolicies([]);

/** What a built-in role may do this to. */
function reachOf(role: string, resource: string, action: string): 'all' | 'own' | '' {
  const may = (target: 'own' | null) =>
    decide(
      NONE,
      BUILTIN,
      policyContext({ role, action, resource, tenant_id: '', identity: { id: 'me' }, target }),
    ).allowed;
  return may(null) ? 'all' : may('own') ? 'own' : '';
}

const scopeOf = (permission: Permission): string =>
  ['read', 'write'].filter((scope) => scopesAllow([scope], permission)).join(', ');

const called = ({ method, path }: Route): string => `\`${method} ${path.replace(/:(\w+)/g, '{$1}')}\``;
const row = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;

/** Which permissions there are, who has them, and where they are asked for, as one document. */
export function permissionsDocument(routes: Route[]): string {
  const shown = routes.filter(({ hidden }) => !hidden);
  const head = ['action', 'scope', ...BUILTIN_ROLES, 'routes'];
  const sections = Object.entries(RESOURCE_ACTIONS).map(([resource, actions]) => {
    const rows = actions.map((action) => {
      const permission: Permission = `${resource}:${action}`;
      const places = shown.filter((route) => route.permission === permission).map(called);
      const others = shown.filter(({ alsoNeeds }) => alsoNeeds?.some((one) => one.permission === permission));
      places.push(...others.map((route) => `(${called(route)})`));
      const reach = BUILTIN_ROLES.map((role) => reachOf(role, resource, action));
      return row([`\`${action}\``, scopeOf(permission), ...reach, places.join('<br>')]);
    });
    return [`## ${resource}\n`, row(head), row(head.map(() => '---')), ...rows, ''].join('\n');
  });
  const open = shown.filter((route) => !route.permission);
  const anybody = open.map((route) => row([called(route), accessOf(route)]));
  const others = ['## Without a permission\n', row(['route', 'who']), row(['---', '---']), ...anybody, ''];
  return [intro, ...sections, others.join('\n')].join('\n');
}

const accessOf = (route: Route): string =>
  route.forwards
    ? 'whoever has a credential; what it calls asks for its own permission'
    : route.public === 'optional'
      ? 'anybody; a credential that is sent must be good'
      : 'anybody';
