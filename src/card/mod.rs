//! The checkout counter: readers, what card is in the field.
