// What the page's charts are made of; imported by the components.
export * from "./numbers.js";
export * from "./options.js";
export * from "./colors.js";
