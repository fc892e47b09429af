//! Tensors, accounts, random numbers and the gradient tape.
