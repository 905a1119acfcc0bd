import type { Db } from './database.ts';
import { sql } from './sql.ts';

interface Column {
  table: string;
  column: string;
  type: string;
  nullable: boolean;
}

const typeOf: Record<string, string> = {
  text: 'string',
  uuid: 'string',
  _uuid: 'string[]',
  timestamptz: 'string',
  bool: 'boolean',
  int4: 'number',
  _int4: 'number[]',
  int8: 'number',
  bytea: 'Buffer',
  json: 'unknown',
  jsonb: 'unknown',
  vector: 'Buffer',
  sparsevec: 'Buffer',
};

/** TypeScript types of all tables, from the schema itself, as rows come back from queries. */
export async function generateTables(operator: Db): Promise<string> {
  const columns = await operator.rows<Column>(sql`
    select c.relname as table, a.attname as column, t.typname as type, not a.attnotnull as nullable
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace and n.nspname = 'public'
    join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    join pg_type t on t.oid = a.atttypid
    where c.relkind = 'r' order by c.relname, a.attnum`);
  const tables = Map.groupBy(columns, ({ table }) => table);
  const interfaces = [...tables].map(([table, fields]) => {
    const lines = fields.map(({ column, type, nullable }) => {
      const known = typeOf[type];
      if (!known)
        throw new Error(
          `the column ${table}.${column} has the type ${type}, which has no TypeScript type yet`,
        );
      return `    ${column}: ${known}${nullable ? ' | null' : ''};`;
    });
    return `  ${table}: {\n${lines.join('\n')}\n  };`;
  });
  return `// Made from the schema by \`npm run tables\`; not to be edited.\nexport interface Tables {\n${interfaces.join('\n')}\n}\n`;
}
