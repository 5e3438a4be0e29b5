//! As much of protobuf as etcd's requests and answers need: fields of bytes and numbers. Pure.
//!
//! Invariant: what is cut short or of an unknown form is no message; nothing is read beyond its end.

use bytes::{BufMut, Bytes, BytesMut};

/// A field of bytes.
pub fn put_bytes(message: &mut BytesMut, number: u8, value: &[u8]) {
    message.put_u8(number << 3 | 2);
    put_varint(message, value.len() as u64);
    message.put_slice(value);
}

/// A field that holds a number.
pub fn put_number(message: &mut BytesMut, number: u8, value: u64) {
    message.put_u8(number << 3);
    put_varint(message, value);
}

fn put_varint(message: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        message.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    message.put_u8(value as u8);
}

/// gRPC: not compressed, length, message.
#[must_use]
pub fn frame(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(message);
    frame.freeze()
}

/// A field's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// A number.
    Number(u64),
    /// Bytes.
    Bytes(&'a [u8]),
}

/// The first field of a number in a message.
#[must_use]
pub fn field(mut message: &[u8], number: u64) -> Option<Value<'_>> {
    loop {
        let (at, value) = take(&mut message)?;
        if at == number {
            return Some(value);
        }
    }
}

/// The next field: its number and value.
fn take<'a>(message: &mut &'a [u8]) -> Option<(u64, Value<'a>)> {
    let tag = varint(message)?;
    let value = match tag & 7 {
        0 => Value::Number(varint(message)?),
        2 => {
            let length = usize::try_from(varint(message)?).ok()?;
            let (value, rest) = message.split_at_checked(length)?;
            *message = rest;
            Value::Bytes(value)
        }
        _ => return None,
    };
    Some((tag >> 3, value))
}

/// All of a message's fields of a number that are bytes, in order; what follows a field that cannot be read is left out.
#[must_use]
pub fn all(mut message: &[u8], number: u64) -> Vec<&[u8]> {
    let mut found = Vec::new();
    while let Some((at, value)) = take(&mut message) {
        if let (true, Value::Bytes(bytes)) = (at == number, value) {
            found.push(bytes);
        }
    }
    found
}

/// The bytes of a field.
#[must_use]
pub fn bytes(message: &[u8], number: u64) -> Option<&[u8]> {
    match field(message, number)? {
        Value::Bytes(bytes) => Some(bytes),
        Value::Number(_) => None,
    }
}

/// The number in a field; 0 if it is left out, as protobuf does.
#[must_use]
pub fn number(message: &[u8], number: u64) -> u64 {
    match field(message, number) {
        Some(Value::Number(value)) => value,
        _ => 0,
    }
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_found_again_and_what_is_cut_short_is_not() {
        let mut message = BytesMut::new();
        put_number(&mut message, 2, 300);
        put_bytes(&mut message, 1, &[7; 200]);
        assert_eq!((number(&message, 2), bytes(&message, 1)), (300, Some([7; 200].as_slice())));
        assert_eq!((number(&message, 3), bytes(&message, 3)), (0, None));
        assert_eq!(all(&message, 1), [[7; 200].as_slice()]);
        assert_eq!(bytes(&message[..100], 1), None);
        assert_eq!(frame(b"ab").as_ref(), [0, 0, 0, 0, 2, b'a', b'b']);
    }
}
