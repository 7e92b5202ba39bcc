# Reads a values.yaml in the plain form that our charts keep to: two spaces a level, one value a line, lists and free maps in
# flow style. form=schema prints a JSON Schema of it, form=table a Markdown table.

function stop(why) {
    printf "%s:%d: %s\n", FILENAME, FNR, why > "/dev/stderr"
    failed = 1
    exit 1
}

function quoted(text) {
    gsub(/\\/, "\\\\", text)
    gsub(/"/, "\\\"", text)
    return "\"" text "\""
}

function spaces(n,    text) {
    while (n-- > 0) text = text "  "
    return text
}

# What the schema says of a value, beside its description and what @schema adds.
function inferred(value) {
    if (extra ~ /"type"/) return ""
    if (value ~ /^\{/) return "\"type\": \"object\"" (extra ~ /"additionalProperties"/ ? "" : ", \"additionalProperties\": {\"type\": \"string\"}")
    if (value ~ /^\[/) return "\"type\": \"array\"" (extra ~ /"items"/ ? "" : ", \"items\": {\"type\": \"string\"}")
    if (value ~ /^(true|false)$/) return "\"type\": \"boolean\""
    if (value ~ /^[0-9]+$/) return "\"type\": \"integer\"" (extra ~ /"minimum"/ ? "" : ", \"minimum\": 0")
    return "\"type\": \"string\""
}

function close_to(level) {
    while (depth > level) {
        depth--
        if (form == "schema") printf "\n%s}}", spaces(depth + 2)
    }
}

function begin(name) {
    if (form == "schema") {
        printf "%s\n%s%s: {", (count[depth]++ ? "," : ""), spaces(depth + 2), quoted(name)
        if (description) printf "\"description\": %s", quoted(description)
        if (extra) printf "%s%s", (description ? ", " : ""), extra
    }
}

function join(level,    text, i) {
    for (i = 0; i < level; i++) text = text path[i] "."
    return text
}

BEGIN {
    depth = 0
    if (form == "schema") {
        printf "{\n  \"$schema\": \"https://json-schema.org/draft/2020-12/schema\",\n  \"title\": %s,\n", quoted("Values of " title)
        printf "  \"type\": \"object\", \"additionalProperties\": false, \"properties\": {"
    } else {
        print "\n| Value | Default | Meaning |\n|---|---|---|"
    }
}

/^[ ]*$/ { description = extra = ""; next }

/^[ ]*# @schema / {
    sub(/^[ ]*# @schema [ ]*\{/, "")
    sub(/\}[ ]*$/, "")
    extra = $0
    next
}

/^[ ]*#/ {
    sub(/^[ ]*# ?/, "")
    description = description (description ? " " : "") $0
    next
}

{
    if (!match($0, /^[ ]*[A-Za-z][A-Za-z0-9]*:/)) stop("neither a comment nor a value on one line: " $0)
    name = substr($0, 1, RLENGTH - 1)
    value = substr($0, RLENGTH + 1)
    sub(/^[ ]*/, "", value)
    match(name, /^[ ]*/)
    level = RLENGTH / 2
    sub(/^[ ]*/, "", name)
    if (level > depth) stop("unexpected indentation: " $0)
    close_to(level)
    if (value == "") {
        begin(name)
        if (form == "schema") {
            printf "%s\"type\": \"object\", \"additionalProperties\": false, \"properties\": {", (description || extra ? ", " : "")
        }
        path[depth++] = name
        count[depth] = 0
    } else {
        if (!description) stop("'" join(level) name "' has no description: say above it what it is for")
        begin(name)
        if (form == "schema") {
            type = inferred(value)
            printf "%s}", (type ? ", " type : "")
        } else {
            cell = description
            gsub(/\|/, "\\|", cell)
            gsub(/\|/, "\\|", value)
            printf "| `%s%s` | `%s` | %s |\n", join(level), name, value, cell
        }
    }
    description = extra = ""
}

END {
    if (!failed) {
        close_to(0)
        print (form == "schema" ? "\n  }\n}" : "")
    }
}
