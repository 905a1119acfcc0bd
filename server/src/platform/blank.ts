/** Whether nothing is to be seen in a text: soft hyphens and spaces of no width are not. */
export const isBlank = (text: string): boolean => !/[^\s\p{Default_Ignorable_Code_Point}]/u.test(text);
