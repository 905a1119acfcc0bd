/** Where the compiled program is kept. */
export const compiled: string;
