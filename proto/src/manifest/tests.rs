//! What a manifest is read as, and what a user is told about a bad one.

use super::*;

#[test]
fn probe() {
    for text in [
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\nspec:\n  selector:\n    matchLabels: {app: web}\n  template:\n    metadata:\n      labels: {app: web}\n    spec:\n      containers:\n        - name: web\n          image: nginx\n          imagePolicy: Always\n",
        "a: &x 1\n",
        "a: *x\n",
        "a: 1\na: 2\n",
        "1: 1\n\"1\": 2\n",
        "<<: {a: 1}\n",
        "a: \t1\n\tb: 2\n",
        "\u{feff}a: b\r\nc: d\r\n",
        "{\"apiVersion\": \"v1\",\n\t\"kind\": \"Pod\",\n\t\"metadata\": {\"name\": \"a\"},\n \"spec\":{\"containers\":[{\"name\":\"x\",\"image\": 3}]}}",
        "---\n---\n# x\n---\nhello\n",
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: x\ndata:\n  a: yes\n  b: 1\n  c: 0644\n",
        "a: !foo b",
        "a: .nan",
        "a: [b",
    ] {
        match read(text, "web.yaml") {
            Ok(objects) => println!(
                "OK {:?}",
                objects.iter().map(|o| (o.object.to_string(), o.origin.to_string())).collect::<Vec<_>>()
            ),
            Err(error) => println!("{}\n", error.refusal("applied")),
        }
    }
}
