//! How a value of each kind is put into a field of the settings and taken out
//! of it again, for the table of [`settings`](super::settings).

macro_rules! millis {
    ($field:ident) => {
        (
            |c: &mut Config, v: Raw| {
                c.mesh.$field = Millis(v.whole());
                Ok(())
            },
            |c: &Config| whole(c.mesh.$field.0),
        )
    };
}

macro_rules! seconds {
    ($($field:ident).+) => {
        (
            |c: &mut Config, v: Raw| {
                c.mesh.$($field).+ = Millis(v.whole() * 1_000);
                Ok(())
            },
            |c: &Config| whole(c.mesh.$($field).+.0 / 1_000),
        )
    };
}

macro_rules! number {
    ($section:ident . $field:ident) => {
        (
            |c: &mut Config, v: Raw| {
                c.$section.$field = narrow(v.whole())?;
                Ok(())
            },
            |c: &Config| whole(c.$section.$field),
        )
    };
}

macro_rules! flag {
    ($section:ident . $field:ident) => {
        (
            |c: &mut Config, v: Raw| {
                c.$section.$field = v == Raw::Flag(true);
                Ok(())
            },
            |c: &Config| Value::Boolean(c.$section.$field),
        )
    };
}

macro_rules! list {
    ($section:ident . $field:ident, $check:expr) => {
        (
            |c: &mut Config, v: Raw| {
                c.$section.$field = v.texts().into_iter().map($check).collect::<Result<_, String>>()?;
                Ok(())
            },
            |c: &Config| Value::Array(c.$section.$field.iter().map(|t| Value::String(t.to_string())).collect()),
        )
    };
}

macro_rules! text {
    ($section:ident . $field:ident, $check:expr) => {
        (
            |c: &mut Config, v: Raw| {
                c.$section.$field = $check(v.text().to_owned())?;
                Ok(())
            },
            |c: &Config| Value::String(c.$section.$field.clone()),
        )
    };
}

macro_rules! file {
    ($section:ident . $field:ident) => {
        (
            |c: &mut Config, v: Raw| {
                c.$section.$field = Some(v.text().into());
                Ok(())
            },
            |c: &Config| Value::String(c.$section.$field.iter().map(|path| path.display().to_string()).collect()),
        )
    };
}
