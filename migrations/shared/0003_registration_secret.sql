-- Values of Secrets that registrations need, for the role that delivers webhooks. Never in clear: sealed under the platform's
-- key, which no database holds. Only the handler's database has rows.
CREATE TABLE registration_secret (
    namespace  varchar(63)  NOT NULL,
    -- Name of the Secret.
    name       varchar(253) NOT NULL,
    -- Key within the Secret.
    key        varchar(253) NOT NULL,
    -- HMAC-SHA256 (hex) of the value and its place, under a key derived from the platform's: which value of this key a
    -- registration means. Two rows of one key are there while one registration runs with the old value and another with the new.
    digest     char(64)     NOT NULL,
    -- The value: nonce (12 bytes), ciphertext and tag of ChaCha20-Poly1305, with namespace, name and key as associated data.
    sealed     bytea        NOT NULL,
    -- Tells under which platform key it is sealed.
    key_id     char(16)     NOT NULL,
    -- When it was sealed.
    updated_at timestamptz  NOT NULL DEFAULT now(),
    PRIMARY KEY (namespace, name, key, digest)
);
