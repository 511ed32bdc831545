//! The operations of the facade, as plain structs.
